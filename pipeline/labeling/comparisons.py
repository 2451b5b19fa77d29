"""Which responses of a prompt are compared with which. Pure: ids in, pairs of ids out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from pipeline.config.recipe import Comparisons
from pipeline.records import ResponseRow, RevisionRow


@dataclass(frozen=True, slots=True)
class Candidate:
    """One side of a comparison, text joined by id."""

    row_id: str
    text: str
    status: str
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Pairing:
    """Two candidates to be compared. `first` and `second` are identities, not slots."""

    comparison: str
    first: Candidate
    second: Candidate
    principle_id: str = ""
    """The principle to judge under; empty for a drawn one."""


def candidate(row: ResponseRow | RevisionRow) -> Candidate:
    """A response or revision as one side of a comparison."""
    text = row.revision if isinstance(row, RevisionRow) else row.response
    return Candidate(row.row_id, text, row.status, row.finish_reason)


def pairings(
    mode: Comparisons | Literal["evaluation", "efficacy"],
    samples: Sequence[ResponseRow],
    initials: Sequence[ResponseRow | RevisionRow],
    revisions: Sequence[RevisionRow],
) -> list[Pairing]:
    """The comparisons of one prompt, in a fixed order.

    Args:
        samples: responses of the policy whose samples are compared.
        initials: responses at the start of the revision chains; for `efficacy`, the texts before.
        revisions: the last revision of each chain.

    `samples` and `best_vs_worst` compare each two samples; `revision_vs_initial` compares each
    revision with the response at the start of its chain; `all` does both. `evaluation` compares
    each sample (of one policy) with the initial of the same index (of another policy). `efficacy`
    compares each revision with the text before it (`initials`), under the revision's principle.
    """
    found: list[Pairing] = []
    if mode in ("samples", "best_vs_worst", "all"):
        kind = "best_vs_worst" if mode == "best_vs_worst" else "samples"
        ordered = sorted(samples, key=lambda row: row.sample_index)
        found += [Pairing(kind, candidate(a), candidate(b)) for a, b in combinations(ordered, 2)]
    if mode in ("revision_vs_initial", "all"):
        starts = {row.row_id: row for row in initials}
        found += [
            Pairing("revision_vs_initial", candidate(row), candidate(starts[row.initial_id]))
            for row in revisions
        ]
    if mode == "efficacy":
        before = {row.row_id: row for row in initials}
        found += [
            Pairing(
                "efficacy", candidate(row), candidate(before[row.response_id]), row.principle_id
            )
            for row in revisions
        ]
    if mode == "evaluation":
        others = {row.sample_index: row for row in initials if isinstance(row, ResponseRow)}
        found += [
            Pairing("evaluation", candidate(row), candidate(others[row.sample_index]))
            for row in samples
            if row.sample_index in others
        ]
    return found


def by_prompt(rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Rows in groups of one prompt, in their order."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(row.prompt_id, []).append(row)
    return groups
