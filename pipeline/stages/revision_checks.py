"""Checks that a revision is a revision. Pure: texts in, names of faults out.

Small models answer a revision request with a critique, with talk about the response, with the
response itself or with a refusal (Bai et al. 2022, section 3.3, avoids the first with few-shot
exemplars). Such texts would become SFT targets. The patterns are English only.
"""

import re

from pipeline.config.recipe import RevisionFault
from pipeline.stages.phrases import AuditedText, is_evasive

_CRITIQUE = re.compile(r"\W*(the )?critique\b|\W*(critique|revision) ?request\b", re.I)
_REQUEST = re.compile(r"\b(critique|revision) ?request\s*:", re.I)
_ANNOUNCES = re.compile(
    r"\W*(sure|certainly|of course|okay|ok|absolutely)?\W*"
    r"(here('s| is| are)|below is|this is|the following is)\b[^.!?\n]{0,60}?"
    r"\b(revis|rewrit|re-writ|rephras|edited|updated|improved|corrected)",
    re.I,
)
_TALKS_ABOUT = re.compile(
    r"\bthe assistant('s|’s)? (last |previous |original |initial )?(response|answer|reply)\b"
    r"|\bI('ve| have) (revised|rewritten|removed|changed|edited|rephrased)\b"
    r"|^\W*(revision|revised (response|answer|version)|rewritten response)\s*:",
    re.I | re.M,
)
_SHORTEST_QUOTE = 20
"""Characters: a shorter critique or request may occur in a revision by chance."""


def revision_faults(
    revision: str, before: str, *, critique: str = "", requests: tuple[str, ...] = ()
) -> tuple[RevisionFault, ...]:
    """What is wrong with `revision` as a rewriting of `before`; empty for a good one.

    Args:
        critique: the critique that it answers; quoting it is a fault.
        requests: the principle's requests; repeating one is a fault.
    """
    text = _plain(revision)
    faults: list[RevisionFault] = []
    quotes = len(_plain(critique)) >= _SHORTEST_QUOTE and _plain(critique) in text
    if _CRITIQUE.match(revision) or quotes:
        faults.append("critique")
    plain = [_plain(request) for request in requests]
    if _REQUEST.search(revision) or any(len(r) >= _SHORTEST_QUOTE and r in text for r in plain):
        faults.append("request")
    if _ANNOUNCES.match(revision) or _TALKS_ABOUT.search(revision):
        faults.append("meta")
    if text == _plain(before):
        faults.append("copy")
    elif _evades(revision) and not _evades(before):
        faults.append("evasion")
    return tuple(faults)


def finds_nothing(critique: str, phrases: tuple[str, ...]) -> bool:
    """Whether a critique has one of the phrases that mean it found no fault."""
    text = _plain(critique)
    return any(_plain(phrase) in text for phrase in phrases if phrase.strip())


def _evades(text: str) -> bool:
    return is_evasive(AuditedText.of("", text))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
