"""Canary stage: comparisons whose answer is known, put to the judge with each batch of others.

In:  PromptRow, the compared responses, the judge's JudgmentRows of the same shard, a CanarySet
Out: CanaryRow, a judgment with what its label should have been

    known      a shipped comparison with a clear answer
    swapped    a comparison of this shard given the other way round: one minus its label
    identical  a response against itself. Both orders are the same request then, so that the label
               is 0.5 by construction; what counts is the probability of one order, the slot bias
    padded     a response against itself with a sentence that says nothing
    injected   the worse response with an instruction to the judge, against the better one

Each kind is drawn by a seed of the shard's prompts, under principles that are drawn too. Canaries
never become pairs.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.audits.canary_set import INJECTIONS, PADDINGS, CanarySet, DrawnCanary, draw_canaries
from pipeline.constitution import Principle
from pipeline.engines.base import Engine
from pipeline.ids import row_id, text_hash, uniform
from pipeline.labeling.comparisons import Candidate, candidate
from pipeline.labeling.judge import Judge
from pipeline.records import CanaryRow, JudgmentRow, PromptRow, Row
from pipeline.soft_labels import swap_average
from pipeline.stages.base import Inputs, Item
from pipeline.stages.sample import conversation_hash
from pipeline.types import Messages

KINDS = ("known", "swapped", "identical", "padded", "injected")
CLEAR = 0.25
"""An answer at least this far from 0.5 tells which response of the shard is the worse one."""


@dataclass(frozen=True)
class Asked:
    """One canary before it has a row."""

    kind: str
    name: str
    """The shipped canary, or the response or judgment that it was made from."""
    principle: Principle
    messages: Messages
    sides: tuple[tuple[str, str], tuple[str, str]]
    """Id and text of `first` and of `second`."""
    expected: float
    parents: tuple[str, ...] = ()
    prompt_id: str = ""
    note: str = ""
    """What else decided the expected label."""


@dataclass(frozen=True)
class Shard:
    """What canaries are made from."""

    seed: str
    """Hash of the shard's prompts and of the run's seed."""
    prompts: dict[str, PromptRow]
    texts: dict[str, Candidate]
    owners: dict[str, str]
    """Prompt of each text."""
    judgments: list[JudgmentRow]
    """Those with a label, between two texts."""


@dataclass(frozen=True)
class CanaryStage:
    """Asks a judge what is known already. Two scoring calls per row, as for any comparison."""

    judge: Judge
    canaries: CanarySet | None
    count: int
    """Of each kind."""
    run_id: str
    texts: tuple[str, ...]
    """Folders of the compared responses."""
    judgments: str = "preference/judge"
    """Folder of this judge's labels."""
    folder: str = "preference/canary"
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
        """The way of asking, the canaries, and how many."""
        return {
            "judge": self.judge.settings(),
            "constitution": self.judge.constitution.tagged_hash,
            "canaries": self.canaries.hash if self.canaries else "",
            "count": self.count,
        }

    def plan(self, inputs: Inputs) -> list[Item]:
        """`count` rows of each kind, or as many as the shard has texts for."""
        shard = self._shard(inputs)
        makers: tuple[Callable[[Shard], Sequence[Asked]], ...] = (
            self._known,
            self._swapped,
            self._identical,
            self._padded,
            self._injected,
        )
        return [self._item(shard, asked) for maker in makers for asked in maker(shard)]

    def _shard(self, inputs: Inputs) -> Shard:
        prompts = {row.row_id: row for row in inputs[self.prompts]}
        rows = [row for folder in self.texts for row in inputs[folder]]
        usable = [row for row in rows if row.status == "ok" and candidate(row).text.strip()]
        texts = {row.row_id: candidate(row) for row in usable}
        return Shard(
            seed=text_hash(str(self.judge.seed), *prompts),
            prompts=prompts,
            texts=texts,
            owners={row.row_id: row.prompt_id for row in usable},
            judgments=[
                row
                for row in inputs[self.judgments]
                if row.status == "ok"
                and row.soft_label is not None
                and row.first_id in texts
                and row.second_id in texts
            ],
        )

    def _known(self, shard: Shard) -> list[Asked]:
        return [_shipped("known", drawn, drawn.canary.worse) for drawn in self._drawn(shard)]

    def _drawn(self, shard: Shard) -> tuple[DrawnCanary, ...]:
        if self.canaries is None:
            return ()
        return draw_canaries(self.canaries, self.judge.constitution, self.count, shard.seed)

    def _swapped(self, shard: Shard) -> list[Asked]:
        found = []
        for row in self._first("swapped", shard, shard.judgments):
            assert row.soft_label is not None
            first, second = (shard.texts[name] for name in (row.first_id, row.second_id))
            found.append(
                Asked(
                    "swapped",
                    row.row_id,
                    self.judge.constitution.by_id(row.principle_id),
                    shard.prompts[row.prompt_id].messages,
                    ((second.row_id, second.text), (first.row_id, first.text)),
                    1.0 - row.soft_label,
                    (row.prompt_id, row.row_id),
                    row.prompt_id,
                    repr(row.soft_label),
                )
            )
        return found

    def _identical(self, shard: Shard) -> list[Asked]:
        return [
            self._twin("identical", shard, text, (text.row_id, text.text))
            for text in self._first("identical", shard, list(shard.texts.values()))
        ]

    def _padded(self, shard: Shard) -> list[Asked]:
        paddings = self.canaries.paddings if self.canaries else PADDINGS
        return [
            self._twin(
                "padded",
                shard,
                text,
                (
                    f"{text.row_id}:padded",
                    f"{text.text.rstrip()} {_pick(paddings, shard, text.row_id)}",
                ),
            )
            for text in self._first("padded", shard, list(shard.texts.values()))
        ]

    def _injected(self, shard: Shard) -> list[Asked]:
        """From the shipped canaries; where none fits, from comparisons with a clear label."""
        texts = self.canaries.injections if self.canaries else INJECTIONS
        # The same canaries as `known`, so that the audit can tell what the instruction did.
        found = [
            _shipped(
                "injected",
                drawn,
                _appended(
                    drawn.canary.worse, _pick(texts, shard, drawn.canary.id, drawn.principle.id)
                ),
            )
            for drawn in self._drawn(shard)
        ]
        if found:
            return found
        clear = [row for row in shard.judgments if abs(_answer(row) - 0.5) >= CLEAR]
        for row in self._first("injected", shard, clear):
            sides = [shard.texts[name] for name in (row.first_id, row.second_id)]
            better, worse = sides if _answer(row) > 0.5 else sides[::-1]
            found.append(
                Asked(
                    "injected",
                    row.row_id,
                    self.judge.constitution.by_id(row.principle_id),
                    shard.prompts[row.prompt_id].messages,
                    (
                        (better.row_id, better.text),
                        (
                            f"{worse.row_id}:injected",
                            _appended(worse.text, _pick(texts, shard, row.row_id)),
                        ),
                    ),
                    1.0,
                    (row.prompt_id, row.row_id),
                    row.prompt_id,
                )
            )
        return found

    def _first(self, kind: str, shard: Shard, rows: list[Any]) -> list[Any]:
        """The rows that the seed puts first."""
        ranked = sorted(rows, key=lambda row: uniform("canary", kind, shard.seed, row.row_id))
        return ranked[: self.count]

    def _twin(self, kind: str, shard: Shard, text: Candidate, second: tuple[str, str]) -> Asked:
        prompt_id = shard.owners[text.row_id]
        return Asked(
            kind,
            text.row_id,
            self.judge.constitution.draw("canary", kind, shard.seed, text.row_id),
            shard.prompts[prompt_id].messages,
            ((text.row_id, text.text), second),
            0.5,
            (prompt_id, text.row_id),
            prompt_id,
        )

    def _item(self, shard: Shard, asked: Asked) -> Item:
        (first_id, first), (second_id, second) = asked.sides
        blank = CanaryRow(
            row_id=row_id(
                "canary",
                asked.kind,
                shard.seed,
                asked.name,
                first_id,
                second_id,
                asked.principle.hash,
                self.judge.identity(first_id, second_id),
                self.judge.engine.fingerprint,
            ),
            parent_ids=asked.parents,
            run_id=self.run_id,
            input_hash=conversation_hash(asked.messages, first, second, asked.note),
            prompt_id=asked.prompt_id,
            model_fingerprint=self.judge.engine.fingerprint,
            template_hash=self.judge.template.hash,
            comparison="canary",
            first_id=first_id,
            second_id=second_id,
            principle_id=asked.principle.id,
            principle_hash=asked.principle.hash,
            canary=asked.kind,
            canary_id=asked.name,
            first_text=first,
            second_text=second,
            expected=asked.expected,
        )
        return Item(blank, _call(self.judge, blank, asked))


def _call(judge: Judge, blank: CanaryRow, asked: Asked) -> Callable[[], Awaitable[Row]]:
    async def call() -> Row:
        return await judge.label(
            blank, asked.messages, asked.principle, blank.first_text, blank.second_text
        )

    return call


def _shipped(kind: str, drawn: DrawnCanary, worse: str) -> Asked:
    canary = drawn.canary
    pair = ((f"{canary.id}:better", canary.better), (f"{canary.id}:{kind}", worse))
    return Asked(
        kind,
        canary.id,
        drawn.principle,
        canary.messages,
        pair if drawn.better_first else (pair[1], pair[0]),
        drawn.expected,
    )


def _answer(row: JudgmentRow) -> float:
    """P(first is preferred) before clamp and calibration, under which no label may look clear."""
    if row.prob_forward is None or row.prob_swapped is None:
        return 0.5
    return swap_average(row.prob_forward, row.prob_swapped)[0]


def _pick(texts: Sequence[str], shard: Shard, *parts: str) -> str:
    return texts[int(uniform("canary text", shard.seed, *parts) * len(texts))]


def _appended(text: str, instruction: str) -> str:
    joint = "" if instruction[:1].isspace() else " "
    return f"{text.rstrip()}{joint}{instruction}"
