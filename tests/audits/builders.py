"""Texts with known faults."""

import random
from collections.abc import Sequence

from pipeline.audits.findings import AuditFinding, AuditReport
from pipeline.ids import row_id
from pipeline.records import PreferenceRow, PromptRow
from pipeline.types import user

WORDS = tuple(
    f"{a}{b}"
    for a in ("ba", "do", "ki", "lu", "me", "no", "pa", "ru", "si", "to")
    for b in ("ban", "der", "fil", "gor", "hut", "jam", "kel", "lop", "mir", "nas")
)
"""100 words that mean nothing."""


def make_texts(number: int, *, num_words: int = 30, seed: int = 0) -> list[str]:
    """Texts of random words: no phrase comes again but by chance."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=num_words)) for _ in range(number)]


def injected(texts: Sequence[str], closing: str, share: float) -> list[str]:
    """The first `share` of the texts with a closing phrase."""
    limit = round(share * len(texts))
    return [f"{t} {closing}" if i < limit else t for i, t in enumerate(texts)]


def make_pairs(chosen: Sequence[str], rejected: Sequence[str] | None = None) -> list[PreferenceRow]:
    """Pairs under prompts of their own; rejected texts are random unless given."""
    others = rejected if rejected is not None else make_texts(len(chosen), seed=1)
    return [
        PreferenceRow(
            row_id=row_id("pair", i),
            prompt_id=f"p{i}",
            messages=(user(f"Q{i}"),),
            chosen=c,
            rejected=r,
            soft_label=0.9,
        )
        for i, (c, r) in enumerate(zip(chosen, others, strict=True))
    ]


def make_prompt(index: int, *tags: str) -> PromptRow:
    """Prompt `p<index>`."""
    return PromptRow(row_id=f"p{index}", messages=(user(f"Q{index}"),), tags=tags)


def finding_of(report: AuditReport, name: str) -> AuditFinding:
    """The finding of one check."""
    (finding,) = (finding for finding in report.findings if finding.name == name)
    return finding
