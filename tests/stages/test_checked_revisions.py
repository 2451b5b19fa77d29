"""Critiques and revisions under principles with a check."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.recipe import ReviseConfig
from pipeline.constitution import Constitution, Principle
from pipeline.evaluation.revisions import measure_revisions
from pipeline.records import CritiqueRow, RevisionRow
from pipeline.stages.critique import HOLDS
from pipeline.stages.revise import ReviseStage
from pipeline.types import Messages
from tests.stages.builders import make_engine, rows, run_chain, supervised


def principle(name: str, /, **check: Any) -> Principle:
    requests = {"critique": "CRITIQUE", "revision": "REVISE", "comparison": "COMPARE"}
    values = {f"{kind}_request": f"{word} {name}" for kind, word in requests.items()}
    return Principle.model_validate({"id": name, "check": check or None, **values})


SHORT = principle("short", name="words", max=3)
CALM = principle("calm", name="no_exclamation_marks")
KIND = principle("kind")


async def revise(
    root: Path, initial: str, revision: str, *principles: Principle
) -> tuple[list[CritiqueRow], list[RevisionRow], int]:
    """Critiques, revisions, and the number of calls beside the first responses."""

    def reply(messages: Messages, seed: int) -> str:
        last = messages[-1].content.split()[0]
        return {"CRITIQUE": "It is cold.", "REVISE": revision}.get(last, initial)

    engine = make_engine(reply=reply)
    constitution = Constitution(name="t", principles=principles)
    states = await run_chain(root, supervised(engine, constitution=constitution), 12)
    made = [rows(root, states, f"supervised/{kind}-1") for kind in ("critique", "revise")]
    return made[0], made[1], len(engine.calls) - 12


async def test_reason_is_the_critique(tmp_path: Path) -> None:
    critiques, revisions, calls = await revise(tmp_path, "one two three four!", "one two", SHORT)
    assert {row.critique for row in critiques} == {
        "The response has 4 words, but at most 3 is allowed."
    }
    assert {(row.status, row.revision, row.faults) for row in revisions} == {("ok", "one two", ())}
    assert {row.model_fingerprint for row in critiques} == {""}
    assert calls == 12


async def test_text_that_holds_stays_as_it_is(tmp_path: Path) -> None:
    critiques, revisions, calls = await revise(tmp_path, "one two", "never asked", SHORT)
    assert {row.critique for row in critiques} == {HOLDS}
    assert {(row.revision, row.skipped, row.status) for row in revisions} == {
        ("one two", True, "ok")
    }
    assert calls == 0


@pytest.mark.parametrize(
    ("revision", "fault", "reason"),
    [
        ("one two three four five", "unmet", "a check fails: still short"),
        ("one two!", "broken", "a check fails: newly calm"),
    ],
)
async def test_revision_that_misses_a_check_is_left_out(
    tmp_path: Path, revision: str, fault: str, reason: str
) -> None:
    _, revisions, _ = await revise(tmp_path, "one two three four", revision, SHORT, CALM)
    revised = [row for row in revisions if not row.skipped]
    assert {row.principle_id for row in revised} == {"short"}
    assert {(row.status, row.reason, row.faults) for row in revised} == {
        ("dropped", reason, (fault,))
    }
    (entry,) = measure_revisions(tmp_path, 0.02, draws=100, seed=0, with_checks=True)
    assert entry.missed_check is not None
    assert (entry.missed_check.share, entry.missed_check.n) == (1.0, len(revised))
    assert entry.faults == {fault: len(revised)} and entry.rejected == 0


async def test_judged_principle_may_not_break_a_check(tmp_path: Path) -> None:
    """What the text before did not hold may stay broken: `calm` fails before and after."""
    _, revisions, calls = await revise(
        tmp_path, "one two!", "one two three four!", KIND, SHORT, CALM
    )
    by_principle = {row.principle_id: (row.status, row.faults, row.skipped) for row in revisions}
    assert by_principle["kind"] == ("dropped", ("broken",), False)
    assert by_principle["short"] == ("ok", (), True)
    assert by_principle["calm"] == ("dropped", ("unmet", "broken"), False)
    critiqued = sum(row.principle_id == "kind" for row in revisions)
    assert calls == critiqued + sum(not row.skipped for row in revisions)


async def test_skip_phrase_does_not_hide_a_failure(tmp_path: Path) -> None:
    """`nothing` is in the reason of a pattern that does not match."""
    engine = make_engine(reply=lambda messages, seed: "Ref 1" if len(messages) > 1 else "no")
    constitution = Constitution(
        name="t", principles=(principle("ref", name="pattern", pattern="Ref"),)
    )
    stages = [
        replace(stage, revise=ReviseConfig(skip_phrases=("nothing",)))
        if isinstance(stage, ReviseStage)
        else stage
        for stage in supervised(engine, constitution=constitution)
    ]
    states = await run_chain(tmp_path, stages, 3)
    revised = rows(tmp_path, states, "supervised/revise-1")
    assert {(row.revision, row.skipped) for row in revised} == {("Ref 1", False)}
