"""Compare-scores stage: from scores of single responses to labels of comparisons.

In:  the responses to compare, their ScoreRows
Out: JudgmentRow with the method of the scores

    P(first preferred) = sigmoid((s_first - s_second) / scale)

For rewards it is the model of Bradley and Terry (1952) that they were trained with. For ratings
and follow-ups it is ours: the papers train on the scores themselves. `scale` is the difference that
means a log-odds of 1 nat. There are no orders, hence no position gap; the row keeps the difference
of each part, which shows the attribute that decided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.ids import content_hash, input_hash, row_id
from pipeline.labeling.comparisons import Compared, Pairing, TextStage
from pipeline.labeling.inputs import LabelingInputs
from pipeline.labeling.known_labels import check_known_labels
from pipeline.records import JudgmentRow, PromptRow, ScoreRow
from pipeline.soft_labels import sigmoid
from pipeline.stages.base import Inputs, Item, Stage, dropped
from pipeline.store.stage_names import JUDGE, LABELS, nth_folder


@dataclass(frozen=True)
class CompareScoresStage(TextStage):
    """Labels comparisons by scores. No model call."""

    compared: Compared
    scale: float
    method: str
    """Labeler whose scores they are."""
    run_id: str
    scores: str
    """Folder of the scores of all texts."""
    folder: str = LABELS
    identity_hash: str = ""
    """Hash of model, method and scale: who labels, and how."""
    engine: None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Prompts, the folders that are compared, and the scores."""
        return (*super().inputs, self.scores)

    def settings(self) -> dict[str, Any]:
        """What is compared, and how a difference becomes a label."""
        return {"comparisons": self.compared.mode, "method": self.method, "scale": self.scale}

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per comparison, prompt after prompt."""
        scores = {row.response_id: row for row in inputs[self.scores]}
        return [
            self._item(prompt, pairing, scores)
            for prompt, pairing in self.compared.pairings(inputs)
        ]

    def _item(self, prompt: PromptRow, pairing: Pairing, scores: Mapping[str, ScoreRow]) -> Item:
        texts = (pairing.first, pairing.second)
        sides = [scores[side.row_id] for side in texts if side.row_id in scores]
        known = sides[0] if sides else ScoreRow(row_id="")
        ids = [side.row_id for side in sides]
        draft = self.judgment(
            prompt,
            pairing,
            row_id=row_id("judgment", self.method, *pairing.ids, ids, self.scale),
            parent_ids=(prompt.row_id, *(side.row_id for side in texts), *ids),
            # The scores are inputs too: a response with a new rating gets a new label.
            input_hash=input_hash(
                prompt.messages,
                *(side.text for side in texts),
                *(f"{s.status} {s.score!r} {s.values!r}" for s in sides),
            ),
            model_fingerprint=known.model_fingerprint,
            template_hash=known.template_hash,
            method=self.method,
            parts=known.parts,
            # Only parts that are principles have a hash.
            principle_id="+".join(known.parts) if known.principle_hash else "",
            principle_hash=known.principle_hash,
            num_verdicts=0,
        )
        if problem := pairing.problem:
            return dropped(draft, problem)
        return Item(self._label(draft, sides))

    def _label(self, row: JudgmentRow, sides: Sequence[ScoreRow]) -> JudgmentRow:
        for side in sides:
            if side.status == "unparsed":
                return replace(row, status="unparsed", reason=side.reason)
            if side.status != "ok":
                return replace(row, status="dropped", reason=f"a score is {side.status}")
        values = [side.score for side in sides if side.score is not None]
        if len(values) < 2:
            return replace(row, status="dropped", reason="a response has no score")
        first, second = sides
        return replace(
            row,
            prob_first=sigmoid((values[0] - values[1]) / self.scale),
            exact=first.exact and second.exact,
            num_verdicts=len(first.parts) if first.principle_hash else 1,
            part_differences=tuple(a - b for a, b in zip(first.values, second.values, strict=True)),
        )


def labels_from_scores(
    inputs: LabelingInputs,
    scorer: Stage,
    compared: Compared,
    scale: float,
    method: str,
    number: int,
) -> CompareScoresStage:
    """The stage that turns the scores of one judge into its labels.

    Args:
        scorer: the stage that makes the scores.
        compared: the folders whose texts it scores.
        scale: score difference that means a log-odds of 1 nat.
        method: labeler whose scores they are.
        number: index of the judge in the panel, from 0.

    Raises:
        ConfigError: the recipe's known labels are of another model or another way of scoring.
    """
    # The seed draws principles; another draw is not another way of labeling.
    settings = {name: value for name, value in scorer.settings().items() if name != "seed"}
    model = scorer.engine.fingerprint if scorer.engine else ""
    identity = content_hash([model, method, scale, settings])[:16]
    if inputs.files.known_labels is not None:
        check_known_labels(inputs.files.known_labels, identity, number)
    return CompareScoresStage(
        compared=compared,
        scale=scale,
        method=method,
        run_id=inputs.run_id,
        scores=scorer.folder,
        folder=nth_folder(JUDGE, number),
        identity_hash=identity,
    )
