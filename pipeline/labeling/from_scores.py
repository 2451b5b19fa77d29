"""Compare-scores stage: from scores of single responses to labels of comparisons.

In:  the responses to compare, their ScoreRows
Out: JudgmentRow with method `score` or `follow_up`

    P(first preferred) = sigmoid((s_first - s_second) / scale)

This link is ours: the papers train on the scores themselves. `scale` is the difference that counts
as a log-odds of 1 nat. There are no orders, hence no position gap; the differences of all parts
stay in the row, so that one can read which attribute decided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.config.recipe import Comparisons
from pipeline.ids import row_id
from pipeline.labeling.comparisons import Pairing, by_prompt, pairings
from pipeline.records import JudgmentRow, PromptRow, Row, ScoreRow
from pipeline.soft_labels import sigmoid
from pipeline.stages.base import Inputs, Item
from pipeline.stages.sample import conversation_hash


@dataclass(frozen=True)
class CompareScoresStage:
    """Labels comparisons by scores. No model call."""

    comparisons: Comparisons
    scale: float
    method: Literal["score", "follow_up"]
    run_id: str
    samples: str | None
    """Folder of the samples to compare, if any."""
    initials: str | None = None
    """Folder of the initial responses, for `revision_vs_initial`."""
    revisions: str | None = None
    """Folder of the last revisions, for `revision_vs_initial`."""
    scores: str = "preference/score"
    """Folder of the scores of all of them."""
    folder: str = "preference/judge"
    prompts: str = "prompts"
    row_type: type[Row] = JudgmentRow
    engine: None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Prompts, the folders that are compared, and the scores."""
        named = (self.prompts, self.samples, self.initials, self.revisions, self.scores)
        return tuple(dict.fromkeys(name for name in named if name))

    def settings(self) -> dict[str, Any]:
        """What is compared, and how a difference becomes a label."""
        return {"comparisons": self.comparisons, "method": self.method, "scale": self.scale}

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per comparison, prompt after prompt."""
        scores = {row.response_id: row for row in inputs[self.scores]}
        groups = [
            by_prompt(inputs[name] if name else ())
            for name in (self.samples, self.initials, self.revisions)
        ]
        return [
            Item(self._row(prompt, pairing, scores), None)
            for prompt in inputs[self.prompts]
            for pairing in pairings(
                self.comparisons, *(group.get(prompt.row_id, []) for group in groups)
            )
        ]

    def _row(
        self, prompt: PromptRow, pairing: Pairing, scores: Mapping[str, ScoreRow]
    ) -> JudgmentRow:
        first, second = pairing.first, pairing.second
        sides = [scores[side.row_id] for side in (first, second) if side.row_id in scores]
        known = sides[0] if sides else ScoreRow(row_id="")
        row = JudgmentRow(
            row_id=row_id(
                "judgment",
                self.method,
                pairing.comparison,
                first.row_id,
                second.row_id,
                [side.row_id for side in sides],
                self.scale,
            ),
            parent_ids=(prompt.row_id, first.row_id, second.row_id, *(s.row_id for s in sides)),
            run_id=self.run_id,
            # The scores are inputs too: a response that was rated anew gets a new label.
            input_hash=conversation_hash(
                prompt.messages,
                first.text,
                second.text,
                *(f"{s.status} {s.score!r} {s.values!r}" for s in sides),
            ),
            prompt_id=prompt.row_id,
            model_fingerprint=known.model_fingerprint,
            template_hash=known.template_hash,
            comparison=pairing.comparison,
            method=self.method,
            first_id=first.row_id,
            second_id=second.row_id,
            parts=known.parts,
            principle_id="+".join(known.parts) if self.method == "score" else "",
            principle_hash=known.principle_hash,
            num_verdicts=0,
        )
        for side in (first, second):
            if side.status != "ok":
                return replace(row, status="dropped", reason=f"a response is {side.status}")
        if first.text == second.text:
            return replace(row, status="dropped", reason="identical responses")
        return self._label(row, sides)

    def _label(self, row: JudgmentRow, sides: Sequence[ScoreRow]) -> JudgmentRow:
        for side in sides:
            if side.status == "unparsed":
                return replace(row, status="unparsed", reason=side.reason)
            if side.status != "ok":
                return replace(row, status="dropped", reason=f"a score is {side.status}")
        if len(sides) < 2 or any(side.score is None for side in sides):
            return replace(row, status="dropped", reason="a response has no score")
        first, second = sides
        assert first.score is not None and second.score is not None
        return replace(
            row,
            soft_label=sigmoid((first.score - second.score) / self.scale),
            exact=first.exact and second.exact,
            num_verdicts=len(first.parts) if self.method == "score" else 1,
            part_differences=tuple(a - b for a, b in zip(first.values, second.values, strict=True)),
        )
