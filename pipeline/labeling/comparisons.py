"""The comparisons of a prompt's responses. Pure: rows in, pairs of texts out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from pipeline.config.labeling import Comparisons
from pipeline.ids import input_hash
from pipeline.records import JudgmentRow, PromptRow, ResponseRow, RevisionRow, ScoreRow
from pipeline.stages.base import Inputs
from pipeline.store.stage_names import PROMPTS


@dataclass(frozen=True, slots=True)
class Candidate:
    """One side of a comparison: a response or a revision."""

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

    @property
    def ids(self) -> tuple[str, str, str]:
        """What the comparison is: its kind and its two sides."""
        return (self.comparison, self.first.row_id, self.second.row_id)

    @property
    def problem(self) -> str | None:
        """Why the two cannot be compared, or None."""
        for side in (self.first, self.second):
            if side.status != "ok":
                return f"a response is {side.status}"
        return "identical responses" if self.first.text == self.second.text else None


@dataclass(frozen=True)
class Compared:
    """The folders whose texts are compared, and how."""

    mode: Comparisons | Literal["evaluation", "efficacy"]
    samples: str | None = None
    """Folder of the samples to compare, if any."""
    others: tuple[str, ...] = ()
    """Folders of further policies' samples, compared as if they were among `samples`."""
    initials: str | None = None
    """Folder of the responses before the revisions, or of the other policy."""
    revisions: str | None = None
    """Folder of the last revisions."""
    prompts: str = PROMPTS

    @property
    def texts(self) -> tuple[str, ...]:
        """Folders of the texts, each once."""
        named = (self.samples, *self.others, self.initials, self.revisions)
        return tuple(dict.fromkeys(name for name in named if name))

    def pairings(self, inputs: Inputs) -> Iterator[tuple[PromptRow, Pairing]]:
        """All comparisons of a shard, prompt after prompt, in a fixed order."""
        groups = [
            by_prompt([row for name in names if name for row in inputs[name]])
            for names in ((self.samples, *self.others), (self.initials,), (self.revisions,))
        ]
        for prompt in inputs[self.prompts]:
            for pairing in pairings(self.mode, *(g.get(prompt.row_id, []) for g in groups)):
                yield prompt, pairing

    def candidates(self, inputs: Inputs) -> Iterator[tuple[PromptRow, list[Candidate]]]:
        """Each prompt with all its texts, in the order of the folders."""
        groups = by_prompt([row for folder in self.texts for row in inputs[folder]])
        for prompt in inputs[self.prompts]:
            yield prompt, [candidate(row) for row in groups.get(prompt.row_id, [])]


class TextStage:
    """What all stages do that read the compared texts: name their inputs, and draft rows."""

    compared: Compared
    run_id: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Prompts and the folders of the compared texts."""
        return (self.compared.prompts, *self.compared.texts)

    def judgment(self, prompt: PromptRow, pairing: Pairing, **values: Any) -> JudgmentRow:
        """The row of a comparison, still without its label; `values` has its id."""
        first, second = pairing.first, pairing.second
        draft = {
            "parent_ids": (prompt.row_id, first.row_id, second.row_id),
            "run_id": self.run_id,
            "input_hash": input_hash(prompt.messages, first.text, second.text),
            "prompt_id": prompt.row_id,
            "comparison": pairing.comparison,
            "first_id": first.row_id,
            "second_id": second.row_id,
        }
        return JudgmentRow(**(draft | values))

    def score(self, prompt: PromptRow, side: Candidate, **values: Any) -> ScoreRow:
        """The row of a response, still without its score; `values` has its id."""
        return ScoreRow(
            parent_ids=(prompt.row_id, side.row_id),
            run_id=self.run_id,
            input_hash=input_hash(prompt.messages, side.text),
            prompt_id=prompt.row_id,
            response_id=side.row_id,
            **values,
        )


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
        mode: `samples` and `best_vs_worst` compare each two samples; `revision_vs_initial` compares
            each revision with the response at the start of its chain; `all` does both.
            `evaluation` and `delta` compare each sample (of one policy) with the initial of the
            same index (of another policy). `efficacy` compares each revision with the text before
            it, under the revision's principle.
        samples: responses of the policies whose samples are compared.
        initials: responses at the start of the revision chains; for `efficacy`, the texts before.
        revisions: the last revision of each chain.
    """
    pairs: list[Pairing] = []
    if mode in ("samples", "best_vs_worst", "all"):
        kind = "best_vs_worst" if mode == "best_vs_worst" else "samples"
        ordered = sorted(samples, key=lambda row: row.sample_index)
        pairs += [Pairing(kind, candidate(a), candidate(b)) for a, b in combinations(ordered, 2)]
    if mode in ("revision_vs_initial", "all"):
        starts = {row.row_id: row for row in initials}
        pairs += [
            Pairing("revision_vs_initial", candidate(row), candidate(starts[row.initial_id]))
            for row in revisions
        ]
    if mode == "efficacy":
        before = {row.row_id: row for row in initials}
        pairs += [
            Pairing(mode, candidate(row), candidate(before[row.response_id]), row.principle_id)
            for row in revisions
        ]
    if mode in ("evaluation", "delta"):
        others = {row.sample_index: row for row in initials if isinstance(row, ResponseRow)}
        pairs += [
            Pairing(mode, candidate(row), candidate(others[row.sample_index]))
            for row in samples
            if row.sample_index in others
        ]
    return pairs


def by_prompt(rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Rows in groups of one prompt, in their order."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(row.prompt_id, []).append(row)
    return groups
