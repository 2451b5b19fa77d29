"""Canary stage: comparisons whose answer is known, put to the judge with each batch of others.

In:  PromptRow, the compared responses, the judge's JudgmentRows of the same shard, a CanarySet
Out: CanaryRow, a judgment with what its label should have been

    known      a shipped comparison with a clear answer
    swapped    a comparison of this shard with the responses exchanged: one minus its label
    identical  a response against itself. Both orders are one request then, so that the label is 0.5
               by construction; what counts is the probability of one order, the slot bias
    padded     a response against itself with a sentence that says nothing
    injected   the worse response with an instruction to the judge, against the better one
    checked    two responses of the shard of which one holds a principle, as its check knows

Each kind is drawn by a seed of the shard's prompts, under principles that are drawn too: those that
the judge decides, and for `checked` each of those that a check decides. Canaries never become
pairs.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pipeline.audits.canary_set import INJECTIONS, PADDINGS, CanarySet, DrawnCanary, draw_canaries
from pipeline.checks import run_check
from pipeline.constitution import Principle, weighted_draw
from pipeline.engines.base import Engine
from pipeline.errors import CheckError
from pipeline.ids import input_hash, row_id, text_hash, uniform
from pipeline.labeling.comparisons import Candidate, candidate
from pipeline.labeling.judge import Judge
from pipeline.records import CanaryRow, JudgmentRow, PromptRow, Row
from pipeline.soft_labels import swap_average
from pipeline.stages.base import Inputs, Item
from pipeline.store.stage_names import CANARY, LABELS, nth_folder
from pipeline.types import Messages

Drawn = TypeVar("Drawn", Candidate, JudgmentRow)
CLEAR = 0.25
"""A label at least this far from 0.5 tells which response of the shard is the worse one."""


@dataclass(frozen=True)
class CanaryCase:
    """One canary before it has a row."""

    name: str
    """The shipped canary, or the response or judgment that it was made from."""
    principle: Principle
    messages: Messages
    sides: tuple[tuple[str, str], tuple[str, str]]
    """Id and text of `first` and of `second`."""
    expected: float
    """The right label, in [0, 1]."""
    parents: tuple[str, ...] = ()
    prompt_id: str = ""
    note: str = ""
    """What else decided the expected label."""


@dataclass(frozen=True)
class CanarySources:
    """What the canaries of a shard are made from."""

    judge: Judge
    canaries: CanarySet | None
    count: int
    """Number of canaries of each kind."""
    seed: str
    """Hash of the shard's prompts and of the run's seed."""
    prompts: dict[str, PromptRow]
    texts: dict[str, Candidate]
    owners: dict[str, str]
    """Prompt id of each text."""
    judgments: list[JudgmentRow]
    """Those with a label, between two texts."""

    def shipped(self) -> tuple[DrawnCanary, ...]:
        """The drawn canaries of the file."""
        if self.canaries is None:
            return ()
        return draw_canaries(self.canaries, self.judge.constitution, self.count, self.seed)

    def drawn(self, kind: str, rows: Iterable[Drawn]) -> list[Drawn]:
        """The rows that the seed puts first."""
        key = ("canary", kind, self.seed)
        return sorted(rows, key=lambda row: uniform(*key, row.row_id))[: self.count]

    def pick(self, texts: Sequence[str], *parts: str) -> str:
        """One of the texts by seed."""
        return texts[int(uniform("canary text", self.seed, *parts) * len(texts))]

    def sides(self, row: JudgmentRow) -> tuple[Candidate, Candidate]:
        """The two texts of a judgment."""
        return self.texts[row.first_id], self.texts[row.second_id]

    def repeated(
        self, row: JudgmentRow, sides: tuple[tuple[str, str], tuple[str, str]], expected: float
    ) -> CanaryCase:
        """A canary made from a judgment of the shard."""
        return CanaryCase(
            row.row_id,
            self.judge.constitution.by_id(row.principle_id),
            self.prompts[row.prompt_id].messages,
            sides,
            expected,
            (row.prompt_id, row.row_id),
            row.prompt_id,
        )

    def drawn_texts(self, kind: str) -> list[Candidate]:
        """The drawn responses; none when the judge decides under no principle."""
        return self.drawn(kind, self.texts.values()) if self.judge.constitution.judged else []

    def self_comparison(self, kind: str, text: Candidate, second: tuple[str, str]) -> CanaryCase:
        """A response against itself, or against a variant of itself."""
        prompt_id = self.owners[text.row_id]
        return CanaryCase(
            text.row_id,
            weighted_draw(self.judge.constitution.judged, "canary", kind, self.seed, text.row_id)[
                0
            ],
            self.prompts[prompt_id].messages,
            ((text.row_id, text.text), second),
            0.5,
            (prompt_id, text.row_id),
            prompt_id,
        )


def _known(sources: CanarySources) -> list[CanaryCase]:
    return [_shipped("known", drawn, drawn.canary.worse) for drawn in sources.shipped()]


def _swapped(sources: CanarySources) -> list[CanaryCase]:
    cases = []
    judged = [row for row in sources.judgments if row.prob_forward is not None]
    for row in sources.drawn("swapped", judged):
        assert row.prob_first is not None
        first, second = sources.sides(row)
        sides = ((second.row_id, second.text), (first.row_id, first.text))
        case = sources.repeated(row, sides, 1.0 - row.prob_first)
        cases.append(replace(case, note=repr(row.prob_first)))
    return cases


def _identical(sources: CanarySources) -> list[CanaryCase]:
    return [
        sources.self_comparison("identical", text, (text.row_id, text.text))
        for text in sources.drawn_texts("identical")
    ]


def _padded(sources: CanarySources) -> list[CanaryCase]:
    paddings = sources.canaries.paddings if sources.canaries else PADDINGS
    return [
        sources.self_comparison(
            "padded",
            text,
            (
                f"{text.row_id}:padded",
                f"{text.text.rstrip()} {sources.pick(paddings, text.row_id)}",
            ),
        )
        for text in sources.drawn_texts("padded")
    ]


def _injected(sources: CanarySources) -> list[CanaryCase]:
    """From the shipped canaries; where none fits, from comparisons with a clear label."""
    texts = sources.canaries.injections if sources.canaries else INJECTIONS
    # The canaries of `known`, so that the audit can tell what the instruction changed.
    if shipped := sources.shipped():
        return [
            _shipped(
                "injected",
                drawn,
                _appended(
                    drawn.canary.worse, sources.pick(texts, drawn.canary.id, drawn.principle.id)
                ),
            )
            for drawn in shipped
        ]
    cases = []
    clear = [row for row in sources.judgments if abs(_raw_label(row) - 0.5) >= CLEAR]
    for row in sources.drawn("injected", clear):
        first, second = sources.sides(row)
        better, worse = (first, second) if _raw_label(row) > 0.5 else (second, first)
        told = _appended(worse.text, sources.pick(texts, row.row_id))
        sides = ((better.row_id, better.text), (f"{worse.row_id}:injected", told))
        cases.append(sources.repeated(row, sides, 1.0))
    return cases


def _checked(sources: CanarySources) -> list[CanaryCase]:
    """Of each principle with a check, comparisons of which exactly one side holds it."""
    compared = {(row.first_id, row.second_id): row for row in sources.judgments}
    cases = []
    for principle in sources.judge.constitution.checked:
        holds = _holding(sources, principle)
        decided = {
            row.row_id: holds[row.first_id]
            for row in compared.values()
            if {holds.get(row.first_id), holds.get(row.second_id)} == {True, False}
        }
        rows = [row for row in compared.values() if row.row_id in decided]
        for row in sources.drawn(f"checked {principle.id}", rows):
            first, second = sources.sides(row)
            sides = ((first.row_id, first.text), (second.row_id, second.text))
            case = sources.repeated(row, sides, float(decided[row.row_id]))
            cases.append(replace(case, principle=principle))
    return cases


def _holding(sources: CanarySources, principle: Principle) -> dict[str, bool]:
    """Which texts hold a principle, by id; without those for which its check raised."""
    holds = {}
    for name, side in sources.texts.items():
        messages = sources.prompts[sources.owners[name]].messages
        try:
            assert principle.check is not None
            holds[name] = run_check(principle.check, side.text, messages).passes
        except CheckError:
            # Labels under this principle fail with its reason; here it decides nothing.
            continue
    return holds


KINDS: dict[str, Callable[[CanarySources], list[CanaryCase]]] = {
    "known": _known,
    "swapped": _swapped,
    "identical": _identical,
    "padded": _padded,
    "injected": _injected,
    "checked": _checked,
}
"""How each kind of canary is made. `label_figures.FIGURES` has what each is checked for."""


@dataclass(frozen=True)
class CanaryStage:
    """Asks a judge what is already known. Two scoring calls per row, as for any comparison."""

    judge: Judge
    canaries: CanarySet | None
    count: int
    """Number of canaries of each kind."""
    run_id: str
    texts: tuple[str, ...]
    """Folders of the compared responses."""
    judgments: str = LABELS
    """Folder of this judge's labels."""
    folder: str = nth_folder(CANARY, 0)
    prompts: str = "prompts"
    row_type: type[Row] = CanaryRow

    @property
    def engine(self) -> Engine:
        """The judge's model."""
        return self.judge.engine

    @property
    def inputs(self) -> tuple[str, ...]:
        """Prompts, texts and labels."""
        return (self.prompts, *self.texts, self.judgments)

    def settings(self) -> dict[str, Any]:
        """The way of asking, the canaries, and their number."""
        return {
            "judge": self.judge.settings(),
            "constitution": self.judge.constitution.hash_with_tags,
            "canaries": self.canaries.hash if self.canaries else "",
            "count": self.count,
        }

    def plan(self, inputs: Inputs) -> list[Item]:
        """`count` rows of each kind, or as many as the shard has texts for."""
        sources = self._sources(inputs)
        return [
            self._item(kind, sources.seed, case)
            for kind, make in KINDS.items()
            for case in make(sources)
        ]

    def _sources(self, inputs: Inputs) -> CanarySources:
        prompts = {row.row_id: row for row in inputs[self.prompts]}
        rows = [row for folder in self.texts for row in inputs[folder]]
        usable = [row for row in rows if row.status == "ok" and candidate(row).text.strip()]
        texts = {row.row_id: candidate(row) for row in usable}
        return CanarySources(
            judge=self.judge,
            canaries=self.canaries,
            count=self.count,
            seed=text_hash(str(self.judge.seed), *prompts),
            prompts=prompts,
            texts=texts,
            owners={row.row_id: row.prompt_id for row in usable},
            judgments=[
                row
                for row in inputs[self.judgments]
                if row.status == "ok"
                and row.prob_first is not None
                and {row.first_id, row.second_id} <= texts.keys()
            ],
        )

    def _item(self, kind: str, seed: str, case: CanaryCase) -> Item:
        (first_id, first), (second_id, second) = case.sides
        row = CanaryRow(
            row_id=row_id(
                "canary",
                kind,
                seed,
                case.name,
                first_id,
                second_id,
                case.principle.hash,
                self.judge.identity(first_id, second_id, case.principle),
                self.judge.engine.fingerprint,
            ),
            parent_ids=case.parents,
            run_id=self.run_id,
            input_hash=input_hash(case.messages, first, second, case.note),
            prompt_id=case.prompt_id,
            model_fingerprint=self.judge.engine.fingerprint,
            template_hash=self.judge.template.hash_for(case.principle),
            comparison="canary",
            first_id=first_id,
            second_id=second_id,
            principle_id=case.principle.id,
            principle_hash=case.principle.hash,
            canary=kind,
            canary_id=case.name,
            first_text=first,
            second_text=second,
            expected=case.expected,
        )

        async def call() -> Row:
            return await self.judge.label(row, case.messages, case.principle, first, second)

        return Item(row, call)


def _shipped(kind: str, drawn: DrawnCanary, worse: str) -> CanaryCase:
    canary = drawn.canary
    pair = ((f"{canary.id}:better", canary.better), (f"{canary.id}:{kind}", worse))
    sides = pair if drawn.better_first else (pair[1], pair[0])
    return CanaryCase(canary.id, drawn.principle, canary.messages, sides, drawn.expected)


def _raw_label(row: JudgmentRow) -> float:
    """P(first is preferred) before clamp and calibration, under which no label may look clear."""
    if row.prob_forward is None or row.prob_swapped is None:
        return 0.5
    return swap_average(row.prob_forward, row.prob_swapped)[0]


def _appended(text: str, instruction: str) -> str:
    joint = "" if instruction[:1].isspace() else " "
    return f"{text.rstrip()}{joint}{instruction}"
