"""Principles in conflict: of two that prefer different responses, the higher one decides."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.labeling import JudgeConfig
from pipeline.constitution import Constitution, Principle
from pipeline.engines import ScriptedEngine
from pipeline.labeling.comparisons import Compared
from pipeline.labeling.conflicts import Conflicts, count_overruled, describe_overruled
from pipeline.labeling.judge import Judge
from pipeline.labeling.judge_stage import JudgeStage
from pipeline.labeling.pool import PoolStage
from pipeline.records import JudgmentRow, Status
from pipeline.stages.base import Stage
from pipeline.store.stage_names import POOLED, SAMPLES
from pipeline.types import Messages
from tests.stages.builders import JUDGE, log_sigmoid, make_engine, rows, run_chain, sample, slots
from tests.stages.builders import template as make_template

SAFE_OVER_FULL = {"full": ["safe"]}


def verdict(principle: str, label: float | None, status: Status = "ok") -> JudgmentRow:
    return JudgmentRow(
        row_id=f"{principle}-row",
        principle_id=principle,
        comparison="samples",
        first_id="f",
        second_id="s",
        prob_first=label,
        status=status,
        reason="" if status == "ok" else "why",
    )


def resolved(
    overrulers: dict[str, list[str]], *verdicts: JudgmentRow, num_drawn: int = 1
) -> tuple[list[str], tuple[str, ...]]:
    result = Conflicts(overrulers, num_drawn, tie_width=0.02).resolve(verdicts)
    return [row.principle_id for row in result.deciding], result.notes


@pytest.mark.parametrize(
    "drawn, above, decides",
    [
        (0.9, 0.2, "safe"),  # they prefer different responses
        (0.1, 0.7, "safe"),
        (0.9, 0.6, "full"),  # they agree
        (0.9, 0.51, "full"),  # the higher one finds a tie
        (0.51, 0.1, "full"),  # nothing to overrule: the drawn one finds a tie
    ],
)
def test_higher_principle_decides_where_they_differ(
    drawn: float, above: float, decides: str
) -> None:
    names, notes = resolved(SAFE_OVER_FULL, verdict("full", drawn), verdict("safe", above))
    assert names == [decides]
    assert notes == (("overruled: full by safe",) if decides == "safe" else ())


def test_the_lower_one_never_overrules() -> None:
    names, notes = resolved(SAFE_OVER_FULL, verdict("safe", 0.9), verdict("full", 0.1), num_drawn=1)
    assert (names, notes) == (["safe"], ())


def test_two_drawn_ones_do_not_both_count_where_they_differ() -> None:
    rows_ = (verdict("full", 0.9), verdict("safe", 0.2))
    assert resolved(SAFE_OVER_FULL, *rows_, num_drawn=2)[0] == ["safe"]
    rows_ = (verdict("full", 0.9), verdict("safe", 0.8))
    assert resolved(SAFE_OVER_FULL, *rows_, num_drawn=2)[0] == ["full", "safe"]


def test_an_overruled_principle_overrules_none() -> None:
    """Law overrules safe, and is not in conflict with full, which is free again."""
    chain = {"full": ["safe"], "safe": ["law"]}
    opposed = (verdict("full", 0.9), verdict("law", 0.9), verdict("safe", 0.2))
    assert resolved(chain, *opposed) == (["full"], ())
    agreeing = (verdict("full", 0.9), verdict("law", 0.3), verdict("safe", 0.2))
    assert resolved(chain, *agreeing)[0] == ["safe"]


@pytest.mark.parametrize("status", ["unparsed", "failed"])
def test_unread_higher_verdict_leaves_no_label(status: Status) -> None:
    names, notes = resolved(SAFE_OVER_FULL, verdict("full", 0.9), verdict("safe", None, status))
    assert (names, notes) == (["safe"], ())


# --- in the stages -------------------------------------------------------------------------------


def principle(name: str, **values: Any) -> Principle:
    requests = {f"{kind}_request": f"about {name}" for kind in ("critique", "revision")}
    return Principle(id=name, comparison_request=f"COMPARE {name} ?", **requests, **values)


CONSTITUTION = Constitution(
    name="t",
    principles=(
        principle("full"),
        principle("safe", priority=5, conflicts=("full",)),
        principle("calm"),
    ),
)


def opinions(messages: Messages, options: Any) -> list[float]:
    """`full` and `calm` prefer the text that sorts first, `safe` the other one."""
    a, b = slots(messages)
    value = 2.0 if (a < b) != ("COMPARE safe" in messages[-1].content) else -2.0
    return [log_sigmoid(value), log_sigmoid(-value)]


async def label(
    root: Path, constitution: Constitution = CONSTITUTION, num_principles: int = 1
) -> tuple[list[JudgmentRow], list[JudgmentRow], ScriptedEngine]:
    engine = ScriptedEngine(lambda messages, seed: "x", opinions)
    config = JudgeConfig(num_principles=num_principles)
    judge = Judge(engine, constitution, make_template(JUDGE), config, seed=0)
    conflicts = Conflicts(constitution.overrulers, num_principles, 0.02)
    stages: list[Stage] = [
        sample(make_engine()),
        JudgeStage(judge, Compared("samples", samples=SAMPLES), "r", consults=True),
        PoolStage(("preference/judge",), "r", conflicts=conflicts),
    ]
    states = await run_chain(root, stages, 24)
    judged, pooled = (rows(root, states, f) for f in ("preference/judge", POOLED))
    return judged, pooled, engine


async def test_conflict_is_asked_decided_and_recorded(tmp_path: Path) -> None:
    judged, pooled, engine = await label(tmp_path)
    by_id = {row.row_id: row for row in judged}
    seen = set()
    for row in pooled:
        verdicts = [by_id[name] for name in row.parent_ids]
        drawn = verdicts[0].principle_id
        seen.add(drawn)
        assert [v.principle_id for v in verdicts[1:]] == (["safe"] if drawn == "full" else [])
        assert row.prob_first == verdicts[-1].prob_first and row.num_verdicts == 1
        assert row.principle_id == ("safe" if drawn == "full" else drawn)
        assert row.reason == ("overruled: full by safe" if drawn == "full" else "")
    assert seen == {"full", "safe", "calm"}
    drawn_full = sum(row.reason != "" for row in pooled)
    assert count_overruled(tmp_path) == {"full by safe": drawn_full}
    assert len([c for c in engine.calls if c.kind == "score"]) == 2 * (24 + drawn_full)
    assert describe_overruled({"full by safe": 9}).endswith(
        "overruled the drawn one: full by safe 9."
    )


async def test_draws_do_not_follow_priorities(tmp_path: Path) -> None:
    plain = Constitution(name="t", principles=tuple(map(principle, ("full", "safe", "calm"))))
    ranked, _, _ = await label(tmp_path / "a")
    drawn, _, _ = await label(tmp_path / "b", plain)
    first = {(row.first_id, row.second_id): row for row in reversed(ranked)}
    assert {(r.first_id, r.second_id): r.row_id for r in drawn} == {
        key: row.row_id for key, row in first.items()
    }


def test_only_overrulers_are_consulted() -> None:
    assert CONSTITUTION.overrulers == {"full": ["safe"]}
    assert [p.id for p in CONSTITUTION.consulted(CONSTITUTION.principles[:1])] == ["safe"]
    assert CONSTITUTION.consulted(CONSTITUTION.principles) == ()
