"""Does a template show the options that are scored, in their order?

In:  a template, the section of the recipe that names the options
Out: None, or a TemplateError before anything is paid for

A judge that reads "(A)" above the second response, or "from 1 to 10" where only 1 to 9 are scored,
answers correctly and is misunderstood: every label would be reversed, without any warning.
"""

import re

from pipeline.config.labeling import JudgeConfig, ScoreConfig
from pipeline.errors import TemplateError
from pipeline.prompting.templates import PromptTemplate

_FIRST, _SECOND = "<<slot_a>>", "<<slot_b>>"

SHOWN = {
    "critique": ("principle.critique_request",),
    "revise": ("principle.revision_request",),
    "judge": ("principle.comparison_request", "slot_a", "slot_b"),
    "score": ("response",),
}
"""What the text of each template must show: a label under a principle that the judge never read, or
about a response that it never saw, would be none."""


def check_shows(template: PromptTemplate, kind: str) -> None:
    """Check that a template shows what its stage is about.

    Args:
        kind: a key of `SHOWN`.

    Raises:
        TemplateError: a value does not occur in the rendered text.
    """
    values = {"slot_a": _FIRST, "slot_b": _SECOND, "response": "<<response>>"}
    text = template.render_trial(**values).casefold()
    for name in SHOWN[kind]:
        if f"<<{name}>>" not in text:
            raise TemplateError(
                f"template {template.name} does not show {name}, which the {kind} template is "
                f"about; write `{{{{ {name} }}}}` in it"
            )


def check_option_labels(template: PromptTemplate, judge: JudgeConfig) -> None:
    """Check that a judge template labels both slots with the options that are scored.

    Raises:
        TemplateError: an option does not occur in the template, or the label of one slot is above
            the other slot's response.
    """
    for label in judge.letters:
        if not _shows(template.source, label):
            raise TemplateError(
                f"template {template.name} shows no option '{label}', but judge.options are "
                f"{list(judge.options)}; use the same in both, such as prompts/judge_digits.jinja "
                "with options ['1', '2']"
            )
    text = template.render_trial(slot_a=_FIRST, slot_b=_SECOND)
    nearest = tuple(_last_before(text, slot, judge.letters) for slot in (_FIRST, _SECOND))
    if nearest == judge.letters[::-1]:
        raise TemplateError(
            f"template {template.name} shows slot_a as '{nearest[0]}' and slot_b as "
            f"'{nearest[1]}', but judge.options are {list(judge.options)}: every label would be "
            "reversed; exchange one of them"
        )


def check_ratings(template: PromptTemplate, score: ScoreConfig) -> None:
    """Check that a score template asks for the ratings that are scored. Raises TemplateError."""
    if re.search(r"\boptions\b", template.source):
        return
    first, last = score.shown[0], score.shown[-1]
    numbers = [int(number) for number in re.findall(r"(?<![\w.])\d+(?![\w])", template.source)]
    beyond = last.isdecimal() and any(number > int(last) for number in numbers)
    if beyond or not all(_shows(template.source, rating) for rating in (first, last)):
        raise TemplateError(
            f"template {template.name} does not ask for ratings from {first} to {last}, the "
            "score.options; write `{{ options[0] }}` and `{{ options[-1] }}` in it"
        )


def _shows(text: str, option: str) -> bool:
    return bool(re.search(rf"(?<!\w){re.escape(option)}(?!\w)", text))


def _last_before(text: str, slot: str, labels: tuple[str, str]) -> str | None:
    either = "|".join(re.escape(label) for label in labels)
    matches = re.findall(rf"(?<!\w)(?:{either})(?!\w)", text.partition(slot)[0])
    return matches[-1] if matches else None
