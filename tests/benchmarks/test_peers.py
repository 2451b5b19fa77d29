"""`benchmarks.peers`: what becomes of a run's requests, and which goals the medians meet."""

from collections import Counter
from typing import Any

import pytest

from benchmarks.peers import CONTENDERS, QUICK, plan
from benchmarks.peers_figures import goals, paid_twice, seen, summary


def call(begin: float, end: float | None, about: str = "p", **fields: Any) -> dict[str, Any]:
    status = None if end is None else 200
    entry = {"begin": begin, "end": end, "about": about, "status": status}
    return {**entry, "path": "/v1/chat/completions", "stage": "sample", **fields}


def test_times_around_the_requests() -> None:
    """Two model calls of 4 s and 2 s within 5 s are 1.2 in flight; /tokenize is none of them."""
    calls = [call(11, 15), call(12, 14), call(15, 16, path="/tokenize"), call(14, None)]
    result = seen(calls, 10, 18)
    assert (result["wall_s"], result["requests"], result["tokenize"]) == (8, 4, 1)
    assert (result["before_s"], result["requests_s"], result["after_s"]) == (1, 5, 2)
    assert result["in_flight"] == pytest.approx(1.2)
    assert seen([], 10, 18) == {"wall_s": 8, "requests": 0}


def test_only_answered_requests_are_paid_twice() -> None:
    """Of `a`, `b` (answered) and `c` (in flight), `b` and `c` are asked again: one of two."""
    before = [call(1, 2, "a"), call(1, 2, "b"), call(1, None, "c")]
    after = [call(3, 4, "b"), call(3, 4, "c"), call(3, 4, "a", stage="critique")]
    assert paid_twice(before, after) == {"answered": 2, "paid_twice": 1, "paid_twice_share": 0.5}
    assert paid_twice([], after)["paid_twice_share"] is None


def results(requests_s: float, wall_s: float, share: float, delayed_s: float) -> dict[str, Any]:
    """Three turns, of which the middle one counts, a kill and a failing prompt."""
    line = {"exit_code": 0, "rows_lost": 0}
    turns = {
        f"turn-{n}": {**line, "requests_s": requests_s * factor, "wall_s": wall_s * factor}
        for n, factor in enumerate((1.0, 0.5, 3.0))
    }
    kill = {**line, "paid_twice_share": share}
    return {**turns, "kill": kill, "poison": {**line, "wall_s": delayed_s, "tries": 4}}


def test_goals_are_of_medians() -> None:
    table = summary(
        {
            "ours": results(10.5, 14, 0.01, 18),
            "ours_prefect": results(10.5, 18, 0.03, 30),
            "plain": results(10.0, 12, 1.0, 13),
            "alone": {"turn-0": {"exit_code": 0, "requests_s": 10.0, "wall_s": 11.0}},
            "datatrove": {"error": {"text": "ERROR: none"}},
        }
    )
    assert table["datatrove"] == {"error": "ERROR: none"}
    assert table["ours"]["delay_by_it_s"] == 4 and table["ours"]["tries_of_it"] == 4
    found = {name: (each["value"], each["met"]) for name, each in goals(table).items()}
    assert found == {
        "requests_over_alone": (1.05, True),
        "requests_over_plain": (1.05, False),
        "prefect_adds_s": (4.0, False),
        "paid_twice_share": (0.03, False),
        "delay_by_one_prompt_s": (4.0, True),
    }


def test_a_run_that_broke_is_named() -> None:
    broken = {"exit_code": 1, "wall_s": 2.0, "rows_lost": 256, "requests": 0}
    parts = {"turn-0": broken, "kill": {**broken, "paid_twice_share": 0.0}}
    table = summary({"ours": {**parts, "poison": {**broken, "tries": 4}}})
    assert table["ours"]["exit_codes"] == [1] and table["ours"]["lost_after_kill"] == 256
    assert not {"paid_twice_share", "delay_by_it_s"} & {*table["ours"]}
    assert goals(table) == {}


def test_each_contender_has_each_place_of_a_turn() -> None:
    steps = list(plan(tuple(CONTENDERS), 3))
    firsts = {part: name for part, name in reversed(steps)}
    assert len({firsts[f"turn-{turn}"] for turn in range(3)}) == 3
    parts = Counter(part for part, _ in steps)
    assert parts["turn-0"] == parts["turn-2"] == len(CONTENDERS) == parts["kill"] + 1
    assert {*QUICK} <= {*CONTENDERS}
