"""From labels to pairs: joins by id, thresholds, and best against worst. No model, no files."""

import random
from dataclasses import replace
from typing import Any

import pytest

from pipeline.config.labeling import PairConfig
from pipeline.labeling.comparisons import pairings
from pipeline.labeling.pair import BELOW_BOUND, BOTH_FAIL, SAME_TEXTS, PairStage, mean_labels
from pipeline.records import JudgmentRow, PreferenceRow, PromptRow, ResponseRow, RevisionRow
from tests.stages.builders import prompt

PROMPT = prompt("q")


def response(name: str, index: int, **fields: Any) -> ResponseRow:
    """A response whose text is its name in capitals."""
    values = {"prompt_id": PROMPT.row_id, "response": name.upper(), "finish_reason": "stop"}
    return ResponseRow(row_id=name, sample_index=index, **(values | fields))


def judgment(first: str, second: str, forward: float, swapped: float, **fields: Any) -> JudgmentRow:
    """P(slot A) in both orders."""
    values: dict[str, Any] = {
        "prompt_id": PROMPT.row_id,
        "comparison": "samples",
        "prob_forward": forward,
        "prob_swapped": swapped,
        "prob_first": (forward + 1 - swapped) / 2,
        "position_gap": abs(forward - 1 + swapped),
    }
    return JudgmentRow(
        row_id=f"{first}-{second}", first_id=first, second_id=second, **(values | fields)
    )


def make_pairs(
    judgments: list[JudgmentRow],
    responses: list[ResponseRow] | None = None,
    config: PairConfig = PairConfig(),
    prompts: list[PromptRow] | None = None,
    least_label: float = 0.5,
) -> list[PreferenceRow]:
    """What the stage plans."""
    folders = ("preference/sample",)
    stage = PairStage(pair=config, run_id="r", responses=folders, least_label=least_label)
    inputs: dict[str, list[Any]] = {
        "prompts": prompts or [PROMPT],
        "preference/sample": responses or [response(n, i) for i, n in enumerate("abcd")],
        "preference/judge": judgments,
    }
    items = stage.plan(inputs)
    assert all(item.make is None for item in items)
    return [item.draft for item in items]  # type: ignore[misc]


def test_second_preferred_is_turned() -> None:
    """P(first) = (0.1 + 0.3) / 2 = 0.2: second is chosen, with label 0.8 and margin ln 4."""
    (pair,) = make_pairs([judgment("a", "b", 0.1, 0.7)])
    assert (pair.chosen, pair.rejected, pair.chosen_id) == ("B", "A", "b")
    assert pair.soft_label == pytest.approx(0.8)
    assert pair.margin == pytest.approx(1.386294, abs=1e-6)
    assert pair.status == "ok" and pair.orders_agree
    assert pair.messages == PROMPT.messages


def test_rows_join_by_id_never_by_place() -> None:
    """Shuffled inputs give the same pairs."""
    prompts = [prompt(f"q {n}") for n in range(8)]
    responses = [
        response(f"{n}-{k}", k, prompt_id=row.row_id)
        for n, row in enumerate(prompts)
        for k in (0, 1)
    ]
    judged = [
        judgment(f"{n}-0", f"{n}-1", 0.1 + n / 10, 0.5, prompt_id=row.row_id)
        for n, row in enumerate(prompts)
    ]
    expected = {p.row_id: p for p in make_pairs(judged, responses, prompts=prompts)}
    for seed in range(5):
        mixed: list[list[Any]] = [
            random.Random(seed).sample(list[Any](rows), len(rows))
            for rows in (judged, responses, prompts)
        ]
        assert {p.row_id: p for p in make_pairs(mixed[0], mixed[1], prompts=mixed[2])} == expected


@pytest.mark.parametrize(
    "forward, swapped, config, reason",
    [
        (0.5, 0.5, PairConfig(tie_width=0), "tie"),
        (0.9, 0.9, PairConfig(tie_width=0), "tie"),
        (0.52, 0.48, PairConfig(tie_width=0.02), "tie"),
        (0.53, 0.47, PairConfig(tie_width=0.02), None),
        # ln(0.75 / 0.25) = 1.0986
        (0.75, 0.25, PairConfig(min_margin=1.09), None),
        (0.75, 0.25, PairConfig(min_margin=1.10), "margin below the minimum"),
        (0.99, 0.6, PairConfig(), None),
        (0.99, 0.6, PairConfig(require_orders_agree=True), "the two orders disagree"),
    ],
)
def test_threshold_decides(
    forward: float, swapped: float, config: PairConfig, reason: str | None
) -> None:
    (pair,) = make_pairs([judgment("a", "b", forward, swapped)], config=config)
    assert pair.status == ("dropped" if reason else "ok")
    assert pair.reason == (reason or "")
    # A dropped pair keeps its label and texts: the report shows what was left out.
    assert pair.soft_label is not None and pair.chosen


@pytest.mark.parametrize(
    "fields, config, reason",
    [
        ({"finish_reason": "length"}, PairConfig(), "truncated response"),
        ({"finish_reason": "length"}, PairConfig(drop_truncated=False), ""),
        ({"response": " \n"}, PairConfig(drop_truncated=False), "empty response"),
    ],
)
def test_unfit_responses_are_left_out(
    fields: dict[str, str], config: PairConfig, reason: str
) -> None:
    responses = [response("a", 0), response("b", 1, **fields)]
    (pair,) = make_pairs([judgment("a", "b", 0.9, 0.1)], responses, config)
    assert pair.reason == reason


@pytest.mark.parametrize("forward", [0.9, 0.1], ids=["longer chosen", "shorter chosen"])
@pytest.mark.parametrize(
    "limit, reason", [(3, ""), (2, "length difference above the maximum"), (None, "")]
)
def test_responses_far_apart_in_length_are_left_out(
    forward: float, limit: int | None, reason: str
) -> None:
    """Five words against two, with white space of all kinds: three apart, whoever wins."""
    responses = [
        response("a", 0, response="one two\nthree  four, five"),
        response("b", 1, response=" one-and two\t"),
    ]
    config = PairConfig(max_length_difference=limit)
    (pair,) = make_pairs([judgment("a", "b", forward, 1 - forward)], responses, config)
    assert pair.reason == reason


def test_limit_of_length_that_is_not_set_changes_no_row() -> None:
    """The ids of pairs of earlier runs hold; a limit makes other rows."""
    assert "max_length_difference" not in PairConfig().thresholds()
    judged = [judgment("a", "b", 0.9, 0.1)]
    (without,) = make_pairs(judged)
    (limited,) = make_pairs(judged, config=PairConfig(max_length_difference=9))
    assert without.row_id != limited.row_id and limited.status == "ok"


@pytest.mark.parametrize(
    "status, reason, expected",
    [
        ("unparsed", "neither option", "judgment unparsed"),
        ("failed", "engine", "judgment failed"),
        ("dropped", "identical responses", "identical responses"),
    ],
)
def test_judgment_without_label_makes_no_pair(status: Any, reason: str, expected: str) -> None:
    row = judgment("a", "b", 0.9, 0.1, status=status, reason=reason)
    (pair,) = make_pairs([row])
    assert (pair.status, pair.reason) == ("dropped", expected)
    assert pair.chosen == pair.rejected == "" and pair.soft_label is None


def test_new_judgment_makes_a_new_pair() -> None:
    """A comparison that is judged again changes the input hash, so no stored pair is taken."""
    (one,) = make_pairs([judgment("a", "b", 0.9, 0.1)])
    (two,) = make_pairs([judgment("a", "b", 0.8, 0.1)])
    assert one.row_id == two.row_id and one.input_hash != two.input_hash


def test_same_texts_are_trained_once() -> None:
    """Samples yes, yes, no: `a` and `b` meet `c` under two principles that disagree."""
    responses = [
        response("a", 0, response="yes"),
        response("b", 1, response="yes\n"),
        response("c", 2, response="no"),
        response("d", 3, response="else"),
    ]
    judged = [
        judgment("b", "c", 0.1, 0.9, principle_id="p-1"),
        judgment("c", "a", 0.2, 0.8),
        judgment("a", "d", 0.9, 0.1),
        judgment("b", "d", 0.5, 0.5),
    ]
    found = {pair.judgment_id: pair for pair in make_pairs(judged, responses)}
    kept = {name for name, pair in found.items() if pair.status == "ok"}
    assert kept == {"c-a", "a-d"}
    assert (found["c-a"].chosen, found["c-a"].rejected) == ("yes", "no")
    dropped = found["b-c"]
    # Its own label and texts stay in the row: the report shows what was left out.
    assert (dropped.reason, dropped.chosen, dropped.principle_id) == (SAME_TEXTS, "no", "p-1")
    assert found["b-d"].reason == SAME_TEXTS
    backwards = {p.judgment_id: p for p in make_pairs(judged[::-1], responses[::-1])}
    assert backwards == found


def test_label_that_stands_for_others_is_not_chosen_by_its_value() -> None:
    """The first of two is a tie: both are dropped. One that could not be read stands for nobody."""
    responses = [
        response("a", 0, response="yes"),
        response("b", 1, response="yes"),
        response("c", 2),
    ]
    tie = judgment("a", "c", 0.5, 0.5)
    clear = judgment("b", "c", 0.9, 0.1)
    assert [p.reason for p in make_pairs([tie, clear], responses)] == ["tie", SAME_TEXTS]
    unread = replace(tie, status="unparsed", prob_first=None)
    assert [p.reason for p in make_pairs([unread, clear], responses)] == ["judgment unparsed", ""]


def test_same_texts_of_two_prompts_are_two_pairs() -> None:
    prompts = [prompt("q 0"), prompt("q 1")]
    responses = [
        response(f"{n}-{k}", k, response=k * "y", prompt_id=row.row_id)
        for n, row in enumerate(prompts)
        for k in (1, 2)
    ]
    judged = [
        judgment(f"{n}-1", f"{n}-2", p, 1 - p, prompt_id=row.row_id)
        for n, (row, p) in enumerate(zip(prompts, (0.9, 0.2), strict=True))
    ]
    found = make_pairs(judged, responses, prompts=prompts)
    assert [(p.status, p.chosen) for p in found] == [("ok", "y"), ("ok", "yy")]


def test_white_space_alone_makes_no_pair() -> None:
    responses = [response("a", 0, response="yes"), response("b", 1, response="yes\n")]
    (pair,) = make_pairs([judgment("a", "b", 0.9, 0.1)], responses)
    assert (pair.status, pair.reason) == ("dropped", "identical responses")


def best_vs_worst(labels: dict[str, float]) -> list[JudgmentRow]:
    """Judgments of consistent judges: P(first) by the two names."""
    return [
        judgment(key[0], key[1], p, 1 - p, comparison="best_vs_worst") for key, p in labels.items()
    ]


def test_best_meets_worst() -> None:
    """Means: a (0.9 + 0.8) / 2 = 0.85, b (0.1 + 0.7) / 2 = 0.4, c (0.2 + 0.3) / 2 = 0.25."""
    judged = best_vs_worst({"ab": 0.9, "ac": 0.8, "bc": 0.7})
    assert mean_labels(judged) == pytest.approx({"a": 0.85, "b": 0.4, "c": 0.25})
    (pair,) = make_pairs(judged)
    assert (pair.chosen, pair.rejected, pair.judgment_id) == ("A", "C", "a-c")
    assert pair.soft_label == pytest.approx(0.8)


def test_ranking_against_direct_label() -> None:
    """A leads (0.71 > 0.55 > 0.24) but lost to c directly, 0.45: dropped, never relabeled."""
    judged = best_vs_worst({"ab": 0.97, "ac": 0.45, "bc": 0.07})
    means = mean_labels(judged)
    assert means == pytest.approx({"a": 0.71, "b": 0.05, "c": 0.74})
    judged = best_vs_worst({"ab": 0.9, "ac": 0.45, "bc": 0.9})
    assert mean_labels(judged) == pytest.approx({"a": 0.675, "b": 0.5, "c": 0.325})
    (pair,) = make_pairs(judged)
    assert (pair.status, pair.reason) == ("dropped", "ranking and direct label disagree")


def test_tournament_without_labels() -> None:
    judged = [replace(j, status="unparsed", prob_first=None) for j in best_vs_worst({"ab": 0.9})]
    (pair,) = make_pairs(judged)
    assert (pair.status, pair.reason) == ("dropped", "fewer than two labeled samples")


def test_comparisons_of_each_mode() -> None:
    samples = [response(n, i) for i, n in reversed(list(enumerate("abc")))]
    revision = RevisionRow(row_id="a2", initial_id="a", revision="A2")

    def named(mode: Any) -> list[tuple[str, str, str]]:
        found = pairings(mode, samples, samples, [revision])
        return [(p.comparison, p.first.row_id, p.second.row_id) for p in found]

    assert named("samples") == [("samples", *pair) for pair in (("a", "b"), ("a", "c"), ("b", "c"))]
    assert [c for c, _, _ in named("best_vs_worst")] == ["best_vs_worst"] * 3
    assert named("revision_vs_initial") == [("revision_vs_initial", "a2", "a")]
    assert named("all") == [*named("samples"), *named("revision_vs_initial")]


def test_evaluation_pairs_equal_indices() -> None:
    ours = [response("a0", 0), response("a1", 1), response("a2", 2)]
    theirs = [response("b1", 1), response("b0", 0)]
    found = pairings("evaluation", ours, theirs, [])
    assert [(p.first.row_id, p.second.row_id) for p in found] == [("a0", "b0"), ("a1", "b1")]


@pytest.mark.parametrize(
    "method, label, reason",
    [
        ("judge", 0.95, None),
        ("judge", 0.85, BELOW_BOUND),
        ("pooled", 0.85, BELOW_BOUND),
        ("check", 1.0, None),  # one side holds the principle
        ("check", 2 / 3, BOTH_FAIL),  # 23 words too many against 46
        ("check", 0.97, BOTH_FAIL),
    ],
)
def test_bound_of_judges_errors_is_none_of_checks(
    method: str, label: float, reason: str | None
) -> None:
    """A check makes no errors, but it has no example in two responses that fail it."""
    row = judgment("a", "b", label, 1 - label, method=method)
    for least_label, expected in ((0.9, reason), (0.5, None)):
        (pair,) = make_pairs([row], least_label=least_label)
        assert pair.reason == (expected or "") and pair.soft_label == pytest.approx(label)
