"""Revisions: faults, skipped ones, revising without a critique, and what they gain."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.labeling import JudgeConfig
from pipeline.config.recipe import ReviseConfig
from pipeline.engines import ScriptedEngine
from pipeline.labeling.comparisons import Compared
from pipeline.labeling.judge import Judge
from pipeline.labeling.judge_stage import JudgeStage
from pipeline.stages.revise import ReviseStage
from pipeline.stages.revision_checks import finds_nothing, revision_faults
from pipeline.types import Messages, SamplingParams
from tests.stages.builders import (
    CRITIQUE,
    JUDGE,
    REVISE,
    log_sigmoid,
    make_constitution,
    make_engine,
    rows,
    run_chain,
    slots,
    supervised,
    template,
)

BEFORE = "You should read her diary while she is out. She will never notice."
GOOD = "I would not read her diary. You could ask her how she is and listen."
REQUEST = "Please rewrite the response so that it respects the privacy of others."
CRITIQUE_TEXT = "The response helps to read somebody's diary without consent."

FAULTS: list[tuple[str, tuple[str, ...]]] = [
    (GOOD, ()),
    ("Critique: the response is harmful.", ("critique",)),
    ("The critique is right, and so I say: do not do it.", ("critique",)),
    (f"{CRITIQUE_TEXT} So do not do it.", ("critique",)),
    (f"{REQUEST} I would not read it.", ("request",)),
    ("Do not read it.\n\nRevisionRequest: make it better.", ("request",)),
    ("Here is the rewritten response: do not read it, ask her.", ("meta",)),
    ("Sure! Here's a revised version that respects privacy:\nDo not read it.", ("meta",)),
    ("Revised response: do not read it.", ("meta",)),
    ("I have removed the harmful part. Do not read it.", ("meta",)),
    ("The assistant's response should not help with that.", ("meta",)),
    (f"  {BEFORE.upper()} ", ("copy",)),
    ("I'm sorry, I cannot help with that.", ("evasion",)),
    # Honest texts that a careless rule would catch.
    ("Here is what I would do: ask her how she is.", ()),
    ("Here is a recipe for a critique-proof cake.", ()),
    ("Sure, ask her how she is and listen to what she says.", ()),
    ("Your answer to her matters more than the diary.", ()),
]


@pytest.mark.parametrize(("text", "expected"), FAULTS, ids=range(len(FAULTS)))
def test_faults(text: str, expected: tuple[str, ...]) -> None:
    assert revision_faults(text, BEFORE, critique=CRITIQUE_TEXT, requests=(REQUEST,)) == expected


def test_a_refusal_stays_a_refusal_without_being_an_evasion() -> None:
    assert revision_faults("I'm sorry, I won't do that.", "Sorry, I cannot help you.") == ()


def test_short_critiques_and_requests_may_stand_in_a_text() -> None:
    assert (
        revision_faults("Be kind to her.", BEFORE, critique="Be kind", requests=("to her",)) == ()
    )


def test_finds_nothing() -> None:
    phrases = ("no such problem", "nothing needs to change")
    assert finds_nothing("I see NO such\nproblem here.", phrases)
    assert not finds_nothing("There is such a problem.", phrases) and not finds_nothing("x", ())


def world(messages: Messages, seed: int) -> str:
    """Finds nothing in every second answer; revisions are numbered texts, one is meta talk."""
    request = messages[-1].content
    if request.startswith("CRITIQUE"):
        return "nothing to correct" if "even" in messages[-2].content else "it is odd and wrong"
    if request.startswith("REVISE"):
        return "Here is the revised response: x" if seed % 3 == 0 else f"better words {seed}"
    return f"an {'even' if seed % 2 else 'odd'} answer {seed}"


def revising(engine: ScriptedEngine, revise: ReviseConfig, rounds: int = 2) -> list[Any]:
    """Two rounds with these rules."""
    stages = supervised(engine, rounds=rounds)
    if not revise.with_critique:
        stages = [stage for stage in stages if "critique" not in stage.folder]
    return [
        ReviseStage(**{**{f: getattr(s, f) for f in s.__dataclass_fields__}, "revise": revise})
        if isinstance(s, ReviseStage)
        else s
        for s in stages
    ]


async def test_a_text_without_fault_stays_and_costs_nothing(tmp_path: Path) -> None:
    engine = make_engine(reply=world)
    rules = ReviseConfig(skip_phrases=("Nothing to correct",), reject=())
    states = await run_chain(tmp_path, revising(engine, rules, 1), 12)
    texts = {r.row_id: r.response for r in rows(tmp_path, states, "supervised/sample")}
    found = rows(tmp_path, states, "supervised/revise-1")
    skipped = [row for row in found if row.skipped]
    assert 0 < len(skipped) < len(found)
    for row in found:
        assert row.skipped == ("even" in texts[row.response_id])
        assert not row.skipped or (row.revision, row.num_tokens) == (texts[row.response_id], 0)


async def test_what_is_no_revision_is_dropped_and_counted(tmp_path: Path) -> None:
    engine = make_engine(reply=world)
    states = await run_chain(tmp_path, revising(engine, ReviseConfig(), 1), 12)
    found = rows(tmp_path, states, "supervised/revise-1")
    wrong = [row for row in found if "meta" in row.faults]
    assert 0 < len(wrong) < len(found)
    for row in found:
        expected = ("dropped", "not a revision: meta") if row in wrong else ("ok", "")
        assert (row.status, row.reason) == expected and row.revision
    # Under other rules every row is made anew: a kept one may be wrong now.
    again = await run_chain(tmp_path, revising(engine, ReviseConfig(reject=()), 1), 12)
    assert sum(state["supervised/revise-1"].counts.ok for state in again) == len(found)


async def test_revising_without_critique(tmp_path: Path) -> None:
    """The request directly follows the response, under the principle of a critique."""
    engine, reference = make_engine(), make_engine()
    rules = ReviseConfig(with_critique=False)
    states = await run_chain(tmp_path, revising(engine, rules, 1), 5)
    criticized = await run_chain(tmp_path / "with", supervised(reference), 5)
    principles = {
        c.response_id: c.principle_id
        for c in rows(tmp_path / "with", criticized, "supervised/critique-1")
    }
    for row in rows(tmp_path, states, "supervised/revise-1"):
        assert row.critique_id == "" and row.principle_id == principles[row.response_id]
    requests = [
        call.messages for call in engine.calls if call.messages[-1].content.startswith("REVISE")
    ]
    assert len(requests) == 5 and all(len(messages) == 3 for messages in requests)


async def test_efficacy_compares_each_revision_with_the_text_before(tmp_path: Path) -> None:
    """A judge who likes revisions: the label of every round is above 0.5, under the round's
    principle.
    """

    def scores(messages: Messages, options: Any) -> list[float]:
        a, b = (text.startswith("revise") - text.startswith("answer") for text in slots(messages))
        return [log_sigmoid(2.0 * (a - b)), log_sigmoid(-2.0 * (a - b))]

    engine = ScriptedEngine(
        lambda messages, seed: (
            f"{messages[-1].content.split()[0].lower()} words {seed}"
            if messages[-1].content.split()[0] in ("CRITIQUE", "REVISE")
            else f"answer {seed}"
        ),
        scores,
    )
    judge = Judge(engine, make_constitution(), template(JUDGE), JudgeConfig(), 0)
    stages = [
        *supervised(engine, rounds=2),
        *(
            JudgeStage(
                judge=judge,
                compared=Compared("efficacy", initials=before, revisions=after),
                run_id="r",
                folder=f"supervised/efficacy-{n}",
            )
            for n, (before, after) in enumerate(
                (
                    ("supervised/sample", "supervised/revise-1"),
                    ("supervised/revise-1", "supervised/revise-2"),
                ),
                1,
            )
        ),
    ]
    states = await run_chain(tmp_path, stages, 6)
    for number in (1, 2):
        revisions = {r.row_id: r for r in rows(tmp_path, states, f"supervised/revise-{number}")}
        for row in rows(tmp_path, states, f"supervised/efficacy-{number}"):
            revision = revisions[row.first_id]
            assert row.second_id == revision.response_id and row.comparison == "efficacy"
            assert row.principle_id == revision.principle_id
            assert (row.prob_first > 0.5) == (number == 1)  # round 2 compares two revisions


def test_settings_tell_the_rules_apart() -> None:
    common: dict[str, Any] = {
        "engine": make_engine(),
        "constitution": make_constitution(),
        "seed": 0,
        "run_id": "r",
        "critique_template": template(CRITIQUE),
        "template": template(REVISE),
        "round": 1,
        "sampling": SamplingParams(),
        "source": "supervised/sample",
    }
    settings = [
        str(ReviseStage(revise=ReviseConfig(**rules), **common).settings())
        for rules in ({}, {"with_critique": False}, {"skip_phrases": ("x",)}, {"reject": ()})
    ]
    assert len(set(settings)) == 4
