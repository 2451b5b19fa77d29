"""Does a template show the options that are scored, in their order?

In:  a template, the section of the recipe that names the options
Out: nothing, or a TemplateError before anything is paid for

A judge that reads "(A)" above the second response, or "from 1 to 10" where only 1 to 9 are scored,
answers rightly and is understood wrongly: every label would be turned around, without a sign.
"""

import re
from types import SimpleNamespace

from pipeline.config.labeling import JudgeConfig, ScoreConfig
from pipeline.errors import TemplateError
from pipeline.prompting.templates import PromptTemplate

_FIRST, _SECOND = "<<first>>", "<<second>>"
_TRIAL = {
    "principle": SimpleNamespace(
        id="id",
        critique_request="-",
        revision_request="-",
        comparison_request="-",
        weight=1.0,
        tags=(),
    ),
    "conversation": [{"role": "user", "content": "-"}],
}


def check_letters(template: PromptTemplate, judge: JudgeConfig) -> None:
    """Raises TemplateError when a template shows other letters than those that are scored, or the
    letter of one slot over the other slot's response.
    """
    for letter in judge.letters:
        if not _shows(template.source, letter):
            raise TemplateError(
                f"template {template.name} shows no option '{letter}', but judge.options are "
                f"{list(judge.options)}; use the same in both, such as prompts/judge_digits.jinja "
                "with options ['1', '2']"
            )
    text = template.render(**_TRIAL, slot_a=_FIRST, slot_b=_SECOND)
    nearest = tuple(_last_before(text, slot, judge.letters) for slot in (_FIRST, _SECOND))
    if nearest == judge.letters[::-1]:
        raise TemplateError(
            f"template {template.name} shows slot_a as '{nearest[0]}' and slot_b as '{nearest[1]}', "
            f"but judge.options are {list(judge.options)}: every label would be turned around; "
            "exchange one of them"
        )


def check_ratings(template: PromptTemplate, score: ScoreConfig) -> None:
    """Raises TemplateError when a template asks for other ratings than those that are scored."""
    if re.search(r"\boptions\b", template.source):
        return
    first, last = score.shown[0], score.shown[-1]
    numbers = [int(number) for number in re.findall(r"(?<![\w.])\d+(?![\w])", template.source)]
    beyond = last.isdecimal() and any(number > int(last) for number in numbers)
    if beyond or not all(_shows(template.source, rating) for rating in (first, last)):
        raise TemplateError(
            f"template {template.name} does not ask for ratings from {first} to {last}, which are the "
            "score.options; let it say `{{ options[0] }}` and `{{ options[-1] }}`"
        )


def _shows(text: str, option: str) -> bool:
    return bool(re.search(rf"(?<!\w){re.escape(option)}(?!\w)", text))


def _last_before(text: str, slot: str, letters: tuple[str, str]) -> str | None:
    either = "|".join(re.escape(letter) for letter in letters)
    found = re.findall(rf"(?<!\w)(?:{either})(?!\w)", text.partition(slot)[0])
    return found[-1] if found else None
