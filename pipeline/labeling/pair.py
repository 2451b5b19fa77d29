"""Pair stage: from judgments to chosen and rejected, with a reason for each one dropped.

In:  PromptRow, the compared responses, JudgmentRow
Out: PreferenceRow, `ok` or `dropped`

The soft label is hardened here and nowhere else: direction by label > 0.5, ties dropped, then
the thresholds of the recipe. The label itself stays in the row and reaches the loss.

Samples of a prompt may repeat each other, so that two texts are compared several times, under
different principles and perhaps with opposite labels. One of these judgments is kept, chosen
without looking at the labels; the others are dropped and counted. A mean would use them all, but it
would belong to no judgment and no principle, and a pair must name both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.config.labeling import PairConfig
from pipeline.ids import input_hash, plain_text, row_id
from pipeline.labeling.comparisons import Candidate, candidate
from pipeline.labeling.contrast import num_words
from pipeline.records import JudgmentRow, PreferenceRow, PromptRow
from pipeline.soft_labels import is_tie, margin, orders_agree
from pipeline.stages.base import Inputs, Item
from pipeline.store.stage_names import LABELS, PAIRS, PROMPTS

SAME_TEXTS = "same texts as another comparison of the prompt"
BELOW_BOUND = "label below the threshold of max_error"
BOTH_FAIL = "neither response holds the principle"


@dataclass(frozen=True)
class PairStage:
    """Makes pairs. No model call."""

    pair: PairConfig
    run_id: str
    responses: tuple[str, ...]
    """Folders of all texts that judgments may name."""
    judgments: str = LABELS
    least_label: float = 0.5
    """Least P(chosen preferred) of a pair: the threshold of `pair.max_error`."""
    folder: str = PAIRS
    engine: None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Prompts, texts, judgments."""
        return (PROMPTS, *self.responses, self.judgments)

    def settings(self) -> dict[str, Any]:
        """The thresholds, and what happens to repeated texts."""
        return {**self._thresholds(), "same_texts": "one label"}

    def _thresholds(self) -> dict[str, Any]:
        bound = {"least_label": self.least_label} if self.least_label > 0.5 else {}
        return {**self.pair.thresholds(), **bound}

    def plan(self, inputs: Inputs) -> list[Item]:
        """One row per judgment; for best against worst, one row per prompt."""
        prompts = {row.row_id: row for row in inputs[PROMPTS]}
        texts = {row.row_id: candidate(row) for folder in self.responses for row in inputs[folder]}
        single = [j for j in inputs[self.judgments] if j.comparison != "best_vs_worst"]
        tournaments: dict[str, list[JudgmentRow]] = {}
        for judgment in inputs[self.judgments]:
            if judgment.comparison == "best_vs_worst":
                tournaments.setdefault(judgment.prompt_id, []).append(judgment)
        repeated = repeated_texts(single, texts)
        rows: list[PreferenceRow] = []
        for judgment in single:
            row = self._row(prompts[judgment.prompt_id], judgment, texts)
            if judgment.row_id in repeated:
                row = replace(row, status="dropped", reason=SAME_TEXTS)
            rows.append(row)
        for prompt_id, judgments in tournaments.items():
            rows.append(self._best_and_worst(prompts[prompt_id], judgments, texts))
        return [Item(row) for row in rows]

    def _row(
        self, prompt: PromptRow, judgment: JudgmentRow, texts: Mapping[str, Candidate]
    ) -> PreferenceRow:
        first, second = texts[judgment.first_id], texts[judgment.second_id]
        row = PreferenceRow(
            row_id=row_id("preference", judgment.row_id, self._thresholds()),
            parent_ids=(judgment.row_id,),
            run_id=self.run_id,
            # The label is an input too: a new judgment makes a new pair.
            input_hash=input_hash(
                prompt.messages,
                first.text,
                second.text,
                judgment.status,
                judgment.reason,
                repr(judgment.prob_first),
            ),
            prompt_id=prompt.row_id,
            judgment_id=judgment.row_id,
            comparison=judgment.comparison,
            principle_id=judgment.principle_id,
            messages=prompt.messages,
        )
        if judgment.status != "ok" or judgment.prob_first is None:
            reason = (
                judgment.reason if judgment.status == "dropped" else f"judgment {judgment.status}"
            )
            return replace(row, status="dropped", reason=reason or "no label")
        return self._decide(row, judgment, first, second)

    def _decide(
        self, row: PreferenceRow, judgment: JudgmentRow, first: Candidate, second: Candidate
    ) -> PreferenceRow:
        label = judgment.prob_first
        assert label is not None
        chosen, rejected = (first, second) if label > 0.5 else (second, first)
        label = max(label, 1.0 - label)
        orders = (judgment.prob_forward, judgment.prob_swapped)
        # Scores and follow-ups look at one response at a time, so there are no orders to disagree.
        agree = orders[0] is None or orders[1] is None or orders_agree(orders[0], orders[1])
        row = replace(
            row,
            chosen=chosen.text,
            rejected=rejected.text,
            chosen_id=chosen.row_id,
            rejected_id=rejected.row_id,
            soft_label=label,
            margin=margin(label),
            position_gap=judgment.position_gap,
            orders_agree=agree,
        )
        reason = drop_reason(self.pair, label, agree, (chosen, rejected))
        if reason is None and self.least_label > 0.5:
            # The threshold bounds the errors of judges. A check makes none; but of two responses
            # that fail it, the better one is no example to follow.
            checked = judgment.method == "check"
            if label < (1.0 if checked else self.least_label):
                reason = BOTH_FAIL if checked else BELOW_BOUND
        return replace(row, status="dropped", reason=reason) if reason else row

    def _best_and_worst(
        self, prompt: PromptRow, judgments: Sequence[JudgmentRow], texts: Mapping[str, Candidate]
    ) -> PreferenceRow:
        """The pair of the samples with the highest and the lowest mean label.

        Its label comes from the comparison of these two. When that comparison disagrees with the
        ranking, or has no label, the pair is dropped, not relabeled.
        """
        scores = mean_labels(judgments)
        ranked = sorted(scores, key=lambda name: (-scores[name], name))
        if len(ranked) < 2:
            return replace(
                self._row(prompt, judgments[0], texts),
                status="dropped",
                reason="fewer than two labeled samples",
            )
        best, worst = ranked[0], ranked[-1]
        direct = next(j for j in judgments if {j.first_id, j.second_id} == {best, worst})
        row = self._row(prompt, direct, texts)
        if row.status == "ok" and row.chosen_id != best:
            return replace(row, status="dropped", reason="ranking and direct label disagree")
        return row


def drop_reason(
    pair: PairConfig, label: float, agree: bool, sides: Sequence[Candidate]
) -> str | None:
    """Why a labeled pair is left out, or None. `label` is P(chosen preferred), in [0.5, 1]."""
    if any(not side.text.strip() for side in sides):
        return "empty response"
    if len({plain_text(side.text) for side in sides}) == 1:
        return "identical responses"
    if pair.drop_truncated and any(side.finish_reason == "length" for side in sides):
        return "truncated response"
    difference = abs(num_words(sides[0].text) - num_words(sides[1].text))
    if pair.max_length_difference is not None and difference > pair.max_length_difference:
        return "length difference above the maximum"
    if is_tie(label, pair.tie_width):
        return "tie"
    if margin(label) < pair.min_margin:
        return "margin below the minimum"
    if pair.require_orders_agree and not agree:
        return "the two orders disagree"
    return None


def repeated_texts(judgments: Sequence[JudgmentRow], texts: Mapping[str, Candidate]) -> set[str]:
    """Ids of labeled judgments that repeat the two texts of another one.

    The judgment with the smallest response ids is kept: these are hashes, independent of the label
    and, for samples, of the constitution. If it is a tie, no pair remains; to prefer a judgment
    with a direction would be to choose by label.
    """
    groups: dict[tuple[str, frozenset[str]], list[JudgmentRow]] = {}
    for judgment in judgments:
        if judgment.status == "ok" and judgment.prob_first is not None:
            sides = (texts[judgment.first_id], texts[judgment.second_id])
            pair = frozenset(plain_text(side.text) for side in sides)
            groups.setdefault((judgment.prompt_id, pair), []).append(judgment)
    repeated: set[str] = set()
    for group in groups.values():
        group.sort(key=lambda j: (*sorted((j.first_id, j.second_id)), j.row_id))
        repeated.update(judgment.row_id for judgment in group[1:])
    return repeated


def mean_labels(judgments: Sequence[JudgmentRow]) -> dict[str, float]:
    """Mean P(preferred) of each response over its labeled comparisons, in [0, 1]."""
    shares: dict[str, list[float]] = {}
    for judgment in judgments:
        if judgment.status == "ok" and judgment.prob_first is not None:
            shares.setdefault(judgment.first_id, []).append(judgment.prob_first)
            shares.setdefault(judgment.second_id, []).append(1.0 - judgment.prob_first)
    return {name: sum(values) / len(values) for name, values in shares.items()}
