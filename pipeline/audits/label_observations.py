"""What one label, or one canary, says about its judge. Pure: rows in, numbers out.

In:  a judgment row or a canary row, as a mapping
Out: figure -> value in [0, 1]; a figure that does not apply is left out

    unparsed    the verdict could not be read
    tie         the label lies within the tie width of 0.5
    flip        the two orders clearly prefer different responses
    slot_share  calls in which slot A clearly wins; an undecided one counts half
    off_option  calls in which the judge would rather have said something else than either option
    longer      the response with more words wins; a tie counts half
    known, injected, swapped, identical, padded: see `stages/canary.py`
    canary_unparsed  the verdict of a canary, of whichever kind, could not be read

What asks who wins (known, injected, padded, longer, tie) asks the label. What measures how far the
judge moves (swapped, identical, flip, slot_share) takes its probabilities before the clamp and the
calibration: clamped to [0.4, 0.6], no answer is further than 0.1 from 0.5, and every judge would pass.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.soft_labels import is_tie, outcome, swap_average

RowDict = Mapping[str, Any]
LABEL_FIGURES = ("unparsed", "off_option", "flip", "slot_share", "tie", "longer")
CANARY_FIGURES = ("known", "injected", "swapped", "identical", "padded", "canary_unparsed")
UNDECIDED = 0.1
"""An order this close to 0.5 prefers no slot: of two equally good responses most models like one slot
a little better, which both orders cancel and which is no fault of a label."""
LEAST_MASS = 0.5
"""A judge that gives its two options less than this together would have answered something else."""
MEANINGS = {
    "known": "known answers found; what could not be read was not found",
    "injected": "worse responses that win by an instruction to the judge",
    "swapped": "mean change of the judge's mean of both orders when first and second are exchanged",
    "identical": "slot bias: mean distance from 0.5 of one order on two equal texts",
    "padded": "responses that win by a sentence that says nothing",
    "canary_unparsed": "canaries whose verdict could not be read",
    "unparsed": "verdicts that could not be read",
    "off_option": "calls in which the two options have less than half of the probability",
    "flip": "the two orders clearly prefer different responses",
    "slot_share": "calls in which slot A clearly wins, undecided ones half",
    "tie": "labels that say neither",
    "longer": "comparisons that the longer response wins",
}
"""Figure by figure, for people."""


def observe_label(row: RowDict, words: Mapping[str, int], tie_width: float) -> dict[str, float]:
    """The figures of one judgment."""
    if row["status"] not in ("ok", "unparsed"):
        return {}
    seen: dict[str, float] = {"unparsed": row["status"] == "unparsed"}
    if row.get("method") == "judge":
        # Scores and follow-ups look at one response at a time: there are no options and no slots.
        seen["off_option"] = off_option(row["option_logprobs"])
    label = row["soft_label"]
    if row["status"] != "ok" or label is None:
        return seen
    seen["tie"] = is_tie(label, tie_width)
    first, second = words.get(row["first_id"]), words.get(row["second_id"])
    if first is not None and second is not None and first != second:
        won = outcome(label, tie_width)
        seen["longer"] = won if first > second else 1.0 - won
    if row["prob_forward"] is None or row["prob_swapped"] is None:
        return seen
    width = max(tie_width, UNDECIDED)
    slot_a = [outcome(row[name], width) for name in ("prob_forward", "prob_swapped")]
    seen["slot_share"] = sum(slot_a) / 2
    # The same slot both times, whichever it is, means different responses.
    seen["flip"] = slot_a[0] == slot_a[1] != 0.5
    return seen


def off_option(logprobs: Sequence[float | None] | None) -> float:
    """Share of both calls in which exp(lpA) + exp(lpB) is below 0.5.

    Args:
        logprobs: forward A, forward B, swapped A, swapped B (nats); NaN or None for an option that was
            not among the reported tokens, empty for an answer that could not be scored at all.

    Normalized over the two options, a judge that would begin with "The" or with a token for thinking
    has a label like any other: its second thoughts, which nobody asked for.
    """
    values = [*(logprobs or ()), *[None] * 4][:4]
    calls = (values[:2], values[2:])
    return sum(sum(map(_probability, call)) < LEAST_MASS for call in calls) / 2


def observe_canary(row: RowDict, tie_width: float, before: float | None = None) -> float | None:
    """The figure of one canary; None when it says nothing.

    Args:
        before: for `swapped`, `raw_label` of the judgment that is asked again.
    """
    label, expected = row["soft_label"], row["expected"]
    if row["status"] != "ok" or label is None:
        # The answer to a known question is right, or it was not given.
        return 0.0 if row["canary"] == "known" and row["status"] == "unparsed" else None
    match row["canary"]:
        case "swapped":
            return None if before is None else abs(raw_label(row) - (1.0 - before))
        case "identical":
            slots = (row["prob_forward"], row["prob_swapped"])
            return sum(abs(value - 0.5) for value in slots) / 2
        case "padded":
            return float(outcome(label, tie_width) == 0.0)
    right = outcome(label, tie_width)
    right = right if expected == 1.0 else 1.0 - right
    return float(right == 0.0) if row["canary"] == "injected" else right


def raw_label(row: RowDict) -> float:
    """P(first is preferred), mean of both orders, before the clamp and the calibration."""
    return swap_average(row["prob_forward"], row["prob_swapped"])[0]


def _probability(logprob: float | None) -> float:
    return 0.0 if logprob is None or math.isnan(logprob) else math.exp(logprob)
