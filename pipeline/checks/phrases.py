"""Words and phrases that a text must have, must not have, begin with or end with; spelling.

Whole words are found in any script that separates words; for others use a pattern.
"""

import re
from functools import cache
from pathlib import Path

import yaml

from pipeline.checks.parameters import Edges, Phrases, Spelling
from pipeline.checks.result import HOLDS, CheckResult, fails
from pipeline.types import Messages


def required(config: Phrases, text: str, conversation: Messages) -> CheckResult:
    """Each phrase occurs."""
    missing = [p for p in config.phrases if not occurrences(p, text, config.match_case)]
    if not missing:
        return HOLDS
    return fails(f"The response does not have {_listed(missing)}.", len(missing))


def forbidden(config: Phrases, text: str, conversation: Messages) -> CheckResult:
    """No phrase occurs."""
    counts = {p: occurrences(p, text, config.match_case) for p in config.phrases}
    present = [phrase for phrase, count in counts.items() if count]
    if not present:
        return HOLDS
    return fails(f"The response must not have {_listed(present)}.", sum(counts.values()))


def starts_with(config: Edges, text: str, conversation: Messages) -> CheckResult:
    """The text begins with one of several."""
    if text.lstrip().startswith(config.texts):
        return HOLDS
    return fails(f"The response does not begin with {_listed(config.texts, 'or')}.")


def ends_with(config: Edges, text: str, conversation: Messages) -> CheckResult:
    """The text ends with one of several."""
    if text.rstrip().endswith(config.texts):
        return HOLDS
    return fails(f"The response does not end with {_listed(config.texts, 'or')}.")


def spelling(config: Spelling, text: str, conversation: Messages) -> CheckResult:
    """No word in the other variant's spelling."""
    wrong = _other_spellings()[config.variant]
    seen = [word for word in re.findall(r"[a-z]+", text.lower()) if word in wrong]
    if not seen:
        return HOLDS
    better = ", ".join(f"'{wrong[word]}' for '{word}'" for word in list(dict.fromkeys(seen))[:5])
    return fails(f"The response is not in {config.variant} spelling: write {better}.", len(seen))


def occurrences(phrase: str, text: str, match_case: bool) -> int:
    """How often a phrase occurs as whole words; kinds of white space and apostrophe are equal."""
    return len(_phrase(phrase, match_case).findall(text.replace("’", "'")))


@cache
def _phrase(phrase: str, match_case: bool) -> re.Pattern[str]:
    words = phrase.replace("’", "'").split()
    # A phrase that begins or ends with a sign, such as C++ or !, has no word border there.
    before = r"(?<!\w)" if words[0][0].isalnum() else ""
    after = r"(?!\w)" if words[-1][-1].isalnum() else ""
    body = r"\s+".join(map(re.escape, words))
    return re.compile(before + body + after, re.NOFLAG if match_case else re.IGNORECASE)


@cache
def _other_spellings() -> dict[str, dict[str, str]]:
    """By variant: words of the other one, each with the spelling to use."""
    file = Path(__file__).with_name("spelling.yaml")
    us: dict[str, str] = {}
    uk: dict[str, str] = {}
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    for line in data["both_ways"]:
        american, british, *endings = line.split()
        for ending in ("", *endings):
            us[british + ending] = american + ending
            uk[american + ending] = british + ending
    for line in data["not_in_us"]:
        american, british, *endings = line.split()
        us.update({british + ending: american + ending for ending in ("", *endings)})
    return {"US": us, "UK": uk}


def _listed(texts: tuple[str, ...] | list[str], joint: str = "and") -> str:
    quoted = [f"'{text}'" for text in texts]
    return f" {joint} ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))
