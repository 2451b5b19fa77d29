"""How a judge is asked: exemplars, chain of thought, several principles, panels, calibration."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.labeling import ChainOfThoughtConfig, JudgeConfig, PreferenceConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.engines import ScriptedEngine
from pipeline.errors import RunStoppedError
from pipeline.labeling.calibration import Calibration
from pipeline.labeling.comparisons import Compared
from pipeline.labeling.few_shot import Exemplar, ExemplarSet, Turn, draw_shots, load_exemplars
from pipeline.labeling.judge import Judge
from pipeline.labeling.judge_stage import JudgeStage, describe_judge
from pipeline.labeling.pool import PoolStage, pool
from pipeline.prompting.templates import JUDGE_VARIABLES, PromptTemplate
from pipeline.records import JudgmentRow
from pipeline.soft_labels import sigmoid
from pipeline.sources.hhh import option_prompt
from pipeline.stages.base import Stage
from pipeline.store.stage_names import SAMPLES
from pipeline.types import Messages, assistant, user
from tests.stages.builders import (
    JUDGE,
    log_sigmoid,
    make_constitution,
    make_engine,
    rows,
    run_chain,
    sample,
    slots,
    template,
)

SHOTS = ExemplarSet(
    name="tests",
    exemplars=tuple(
        Exemplar(
            conversation=(Turn(role="user", content=f"exemplar question {n}"),),
            better=f"better {n}",
            worse=f"worse {n}",
            rationale="({better}) beats ({worse})",
        )
        for n in range(4)
    ),
)
THOUGHT = ChainOfThoughtConfig()


def judge(engine: ScriptedEngine, config: JudgeConfig = JudgeConfig(), **options: Any) -> Judge:
    """A judge of the test constitution."""
    return Judge(engine, make_constitution(), template(JUDGE), config, seed=0, **options)


def test_card_says_how_the_judge_was_asked() -> None:
    """Principles, rationales, exemplars and calibration change what a label means."""
    plain = describe_judge(PreferenceConfig())
    assert plain.startswith(
        "For each, one principle is drawn by seed and the judge is asked twice,"
    )
    assert not re.search("rationale|calibration|averaged|precede", plain)
    shots = {"num_exemplars": 2, "exemplars": Path("shots.yaml")}
    config = JudgeConfig(
        num_principles=3, chain_of_thought=THOUGHT, calibration=Path("c.json"), **shots
    )
    full = describe_judge(PreferenceConfig(judge=config))
    for words in (
        "For each, 3 principles are drawn by seed and the judge is asked twice under each, with",
        "2 solved comparisons precede each question.",
        "It writes a rationale first; the probabilities are read after it and kept within 0.4 and",
        "The labels of the principles are averaged. A calibration that was fitted on labeled",
    ):
        assert words in full


def stage(asked: Judge, folder: str = "preference/judge") -> JudgeStage:
    """Two samples per prompt are compared."""
    return JudgeStage(asked, Compared("samples", samples=SAMPLES), "r", folder)


async def labels(root: Path, asked: Judge, prompts: int = 6) -> list[JudgmentRow]:
    """Labels of one judge on the samples of a few prompts."""
    states = await run_chain(root, [sample(make_engine()), stage(asked)], prompts)
    return rows(root, states, "preference/judge")


# --- exemplars -----------------------------------------------------------------------------------


def test_shots_differ_and_letters_are_balanced() -> None:
    letters: Counter[bool] = Counter()
    for number in range(200):
        shots = draw_shots(SHOTS, make_constitution(), 2, number)
        assert len({shot.exemplar.better for shot in shots}) == 2
        assert [shot.better_first for shot in shots].count(True) == 1
        letters[shots[0].better_first] += 1
    # 200 fair draws stay within 5 standard deviations of 100.
    assert abs(letters[True] - 100) < 36


def test_shots_show_principles_under_which_they_hold() -> None:
    constitution = make_constitution()
    tagged = constitution.model_copy(
        update={
            "principles": tuple(
                p.model_copy(update={"tags": (f"t{n}",)})
                for n, p in enumerate(constitution.principles)
            )
        }
    )
    only = SHOTS.model_copy(
        update={"exemplars": tuple(e.model_copy(update={"tags": ("t1",)}) for e in SHOTS.exemplars)}
    )
    drawn = {s.principle.id for n in range(30) for s in draw_shots(only, tagged, 2, n)}
    assert drawn == {"p-1"}
    nothing = only.model_copy(
        update={
            "exemplars": tuple(e.model_copy(update={"tags": ("other",)}) for e in only.exemplars)
        }
    )
    assert draw_shots(nothing, tagged, 2, 0) == ()


def test_exemplars_stand_before_the_sample_as_solved_turns() -> None:
    config = JudgeConfig(exemplars=Path("x"), num_exemplars=2, preamble="PREAMBLE", ending="ENDING")
    asked = judge(make_engine(), config, exemplars=SHOTS)
    shots = draw_shots(SHOTS, asked.constitution, 2, 0)
    messages = asked.messages(
        (user("q"),), asked.constitution.principles[0], "one", "two", shots=shots
    )
    assert [m.role for m in messages] == ["user", "assistant", "user", "assistant", "user"]
    assert messages[0].content.startswith("PREAMBLE\n\n")
    for shot, turn, verdict in zip(shots, messages[::2], messages[1::2], strict=False):
        assert slots((turn,)) == shot.slots
        assert slots((turn,))["AB".index(verdict.content)].startswith("better")
        assert shot.principle.comparison_request in turn.content and turn.content.endswith("ENDING")
    assert slots(messages) == ("one", "two") and "PREAMBLE" not in messages[-1].content


async def test_both_orders_see_the_same_exemplars(tmp_path: Path) -> None:
    """A pull of the last exemplar's letter cancels: the label of equal texts is exactly 0.5."""
    seen: dict[tuple[str, ...], int] = {}

    def scores(messages: Messages, options: Sequence[str]) -> list[float]:
        seen[tuple(m.content for m in messages[:-1])] = (
            seen.get(tuple(m.content for m in messages[:-1]), 0) + 1
        )
        pull = 1.5 if messages[-2].content == "A" else -1.5
        return [log_sigmoid(pull), log_sigmoid(-pull)]

    engine = ScriptedEngine(lambda messages, seed: "unused", scores)
    config = JudgeConfig(exemplars=Path("x"), num_exemplars=1)
    found = await labels(tmp_path, judge(engine, config, exemplars=SHOTS))
    assert [row.prob_first for row in found] == pytest.approx([0.5] * 6)
    assert all(count % 2 == 0 for count in seen.values())


# --- chain of thought ----------------------------------------------------------------------------


def thinking_engine(logit: float) -> ScriptedEngine:
    """A judge whose verdict follows its rationale: it likes the alphabetically first text."""

    def reply(messages: Messages, seed: int) -> str:
        a, b = slots(messages)
        return "A it is" if a < b else "B it is"

    def scores(messages: Messages, options: Sequence[str]) -> list[float]:
        assert messages[-1].content == "So which response is better, (A) or (B)?"
        value = logit if messages[-2].content.startswith("A") else -logit
        return [log_sigmoid(value), log_sigmoid(-value)]

    return ScriptedEngine(reply, scores)


async def test_each_order_has_its_own_rationale_and_is_clamped(tmp_path: Path) -> None:
    engine = thinking_engine(4.0)
    found = await labels(tmp_path, judge(engine, JudgeConfig(chain_of_thought=THOUGHT)))
    for row in found:
        assert sorted(row.rationales) == ["A it is", "B it is"]
        # The calls say 0.98; 0.6 reaches the label, and the raw values stay in the row.
        assert row.prob_first in (pytest.approx(0.6), pytest.approx(0.4))
        assert {round(row.prob_forward or 0, 3), round(row.prob_swapped or 0, 3)} == {0.982, 0.018}
        assert (row.clamp_low, row.clamp_high) == (0.4, 0.6) and row.num_tokens == 6


async def test_clamp_comes_before_the_mean(tmp_path: Path) -> None:
    """0.99 and 0.2 for the first response: clamped first 0.5, clamped after the mean 0.595."""

    def scores(messages: Messages, options: Sequence[str]) -> list[float]:
        a, b = slots(messages[:-2])
        p = 0.99 if a < b else 0.8  # P(slot A): forward 0.99; swapped 0.8, so 0.2 for the first
        return [math.log(p), math.log1p(-p)]

    engine = ScriptedEngine(lambda messages, seed: "because", scores)
    clamped = await labels(tmp_path, judge(engine, JudgeConfig(chain_of_thought=THOUGHT)))
    assert [row.prob_first for row in clamped] == pytest.approx([0.5] * 6)
    free = JudgeConfig(chain_of_thought=ChainOfThoughtConfig(clamp=None))
    raw = await labels(tmp_path / "raw", judge(engine, free))
    assert {round(row.prob_first or 0, 3) for row in raw} <= {0.595, 0.405}
    assert all(row.clamp_low is None for row in raw)


async def test_plain_labels_are_not_clamped(tmp_path: Path) -> None:
    found = await labels(tmp_path, judge(make_engine(lambda a, b: 3.0 if a < b else -3.0)))
    assert {round(abs((r.prob_first or 0) - 0.5), 3) for r in found} == {round(sigmoid(3) - 0.5, 3)}
    assert all(row.clamp_low is None and row.rationales == () for row in found)


async def test_an_empty_rationale_is_no_verdict(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda messages, seed: "  ", lambda messages, options: [-0.1, -3.0])
    with pytest.raises(RunStoppedError, match="the model sent no text"):
        await labels(tmp_path, judge(engine, JudgeConfig(chain_of_thought=THOUGHT)))


def test_exemplars_with_rationale_show_the_letters_of_their_order() -> None:
    config = JudgeConfig(
        exemplars=Path("x"), num_exemplars=2, chain_of_thought=THOUGHT, options=("1", "2")
    )
    asked = judge(make_engine(), config, exemplars=SHOTS)
    shots = draw_shots(SHOTS, asked.constitution, 2, 3)
    turns = asked.messages(
        (user("q"),), asked.constitution.principles[0], "one", "two", shots=shots
    )
    assert [m.role for m in turns] == ["user", "assistant"] * 4 + ["user"]
    for shot, rationale, ending, verdict in zip(
        shots, turns[1::4], turns[2::4], turns[3::4], strict=True
    ):
        better, worse = ("1", "2") if shot.better_first else ("2", "1")
        assert rationale == assistant(f"({better}) beats ({worse})") and verdict == assistant(
            better
        )
        assert ending.content == "So which response is better, (1) or (2)?"


# --- principles and panels -----------------------------------------------------------------------


async def test_several_principles_give_a_row_each_and_a_pooled_label(tmp_path: Path) -> None:
    """Principle n gives the first response log-odds n: the pooled label is the mean of s(n)."""

    def scores(messages: Messages, options: Sequence[str]) -> list[float]:
        number = int(messages[-1].content.split("COMPARE ")[1].split("\n")[0])
        a, b = slots(messages)
        value = float(number if a < b else -number)
        return [log_sigmoid(value), log_sigmoid(-value)]

    engine = ScriptedEngine(lambda messages, seed: "x", scores)
    stages: list[Stage] = [
        sample(make_engine()),
        stage(judge(engine, JudgeConfig(num_principles=3))),
        PoolStage(("preference/judge",), "r"),
    ]
    states = await run_chain(tmp_path, stages)
    single, pooled = (
        rows(tmp_path, states, "preference/judge"),
        rows(tmp_path, states, "preference/pool"),
    )
    assert len(single) == 18 and len(pooled) == 6
    mean = (sigmoid(0) + sigmoid(1) + sigmoid(2)) / 3
    for row in pooled:
        assert row.prob_first in (pytest.approx(mean), pytest.approx(1 - mean))
        assert row.num_verdicts == 3 and len(row.parent_ids) == 3 and row.method == "pooled"
        assert set(row.principle_id.split("+")) == {"p-0", "p-1", "p-2"}


def verdict(prob_first: float | None, name: str, status: Any = "ok") -> JudgmentRow:
    """One judge's row on the same comparison."""
    return JudgmentRow(
        row_id=name,
        comparison="samples",
        first_id="f",
        second_id="s",
        principle_id="p",
        model_fingerprint=name,
        prob_first=prob_first,
        status=status,
        reason="" if status == "ok" else "why",
        prob_forward=prob_first,
        prob_swapped=None if prob_first is None else 1 - prob_first,
    )


def test_pooling_averages_probabilities_not_votes() -> None:
    """0.9, 0.4 and 0.4: two judges of three vote against, the mean is 0.5667 for the first."""
    row = pool([verdict(0.9, "a"), verdict(0.4, "b"), verdict(0.4, "c")], "r")
    assert row.prob_first == pytest.approx(1.7 / 3) and row.model_fingerprint == "a+b+c"
    assert row.prob_swapped == pytest.approx(1.3 / 3)


def test_pooling_needs_half_of_the_verdicts() -> None:
    read, lost = verdict(0.8, "a"), verdict(None, "b", "unparsed")
    assert pool([read, lost], "r").prob_first == 0.8 and pool([read, lost], "r").num_verdicts == 1
    row = pool([read, lost, verdict(None, "c", "unparsed")], "r")
    assert (row.status, row.prob_first, row.reason) == ("unparsed", None, "why")


# --- calibration and rendering -------------------------------------------------------------------


async def test_calibration_changes_the_label_and_keeps_the_raw_one(tmp_path: Path) -> None:
    engine = make_engine(lambda a, b: 3.0 if a < b else -3.0)
    cool = Calibration(kind="temperature", temperature=3.0)
    found = await labels(tmp_path, judge(engine, calibration=cool))
    for row in found:
        assert abs((row.raw_label or 0) - 0.5) == pytest.approx(sigmoid(3) - 0.5)
        assert abs((row.prob_first or 0) - 0.5) == pytest.approx(sigmoid(1) - 0.5)
        assert row.calibration_hash == cool.hash


def test_raw_rendering_is_the_published_prompt_to_the_byte() -> None:
    """judge_cai.jinja against the template that rebuilds the published evaluation prompts."""
    source = PromptTemplate.from_file(PROJECT_ROOT / "prompts/judge_cai.jinja", JUDGE_VARIABLES)
    principle = (
        make_constitution()
        .principles[0]
        .model_copy(
            update={
                "comparison_request": (
                    "Please choose the response that is the most helpful, honest, and harmless."
                )
            }
        )
    )
    talk = (user("first"), assistant("reply"), user("second\n\nwith a paragraph"))
    asked = Judge(
        make_engine(), make_constitution(), source, JudgeConfig(options=(" (A)", " (B)")), 0
    )
    context = "\n\nHuman: first\n\nAssistant: reply\n\nHuman: second\n\nwith a paragraph"
    (message,) = asked.messages(talk, principle, "one", "two]")
    assert message.content == option_prompt(context, "one", "two]")
    assert asked.config.letters == ("A", "B")


def test_shipped_exemplars_fit_their_constitutions() -> None:
    from pipeline.constitution import load_constitution

    found = load_exemplars(PROJECT_ROOT / "prompts/exemplars/general.yaml")
    constitution = load_constitution(PROJECT_ROOT / "constitutions/open_assistant.yaml")
    for principle in constitution.principles:
        assert any(e.holds_under(principle) for e in found.exemplars), principle.id
    assert all(e.rationale for e in found.exemplars)
