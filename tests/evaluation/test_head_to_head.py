"""Win rates by hand: a win is 1, a tie 0.5, unreadable verdicts are left out."""

from pathlib import Path

import pytest

from pipeline.evaluation.head_to_head import deciding_judge, win_rates
from pipeline.evaluation.results import PrincipleWins, WinRate
from pipeline.records import JudgmentRow
from pipeline.store import RunDir, write_json
from tests.evaluation.builders import judgment, known, make_run, response
from tests.run.builders import write_rows


def judged(run: RunDir, *rows: JudgmentRow, folder: str = "judge-tuned-vs-initial") -> WinRate:
    write_rows(run, f"evaluation/{folder}", list(rows))
    return win_rates(run.root, tie_width=0.02, draws=200, seed=0)[0]


def win(name: str, prompt: str, principle: str = "harm") -> JudgmentRow:
    return judgment(name, prompt, f"{name}-a", f"{name}-b", principle)


def loss(name: str, prompt: str, principle: str = "harm") -> JudgmentRow:
    return judgment(name, prompt, f"{name}-a", f"{name}-b", principle, forward=0.1, swapped=0.9)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(tmp_path / "run")


def test_wins_ties_and_losses_add_up(run: RunDir) -> None:
    """Win, win, loss, tie (0.51): (1 + 1 + 0 + 0.5) / 4 = 0.625.

    The soft labels: (0.8 + 0.8 + 0.1 + 0.51) / 4 = 0.5525.
    """
    tie = judgment("t", "p4", "a", "b", forward=0.51, swapped=0.49)
    entry = judged(run, win("w", "p1"), win("v", "p2"), loss("l", "p3"), tie)
    assert entry.win_rate == 0.625
    assert entry.tie_share == 0.25
    assert known(entry.prob_preferred).share == pytest.approx(0.5525)
    assert known(entry.low) < 0.625 < known(entry.high)
    assert (entry.policy, entry.against) == ("tuned", "initial")


def test_identical_responses_are_ties(run: RunDir) -> None:
    same = judgment("s", "p2", "a", "b", status="dropped", reason="identical responses")
    entry = judged(run, win("w", "p1"), same)
    assert (entry.win_rate, entry.identical, entry.tie_share) == (0.75, 1, 0.5)


def test_unreadable_verdicts_are_no_ties(run: RunDir) -> None:
    lost = judgment("u", "p2", "a", "b", status="unparsed", reason="?")
    gone = judgment("g", "p3", "a", "b", status="dropped", reason="a response is failed")
    entry = judged(run, win("w", "p1"), lost, gone)
    assert (entry.win_rate, entry.num_comparisons) == (1.0, 1)
    assert (entry.unparsed, entry.left_out, entry.tie_share) == (1, 1, 0.0)


def test_position_numbers_come_from_both_orders(run: RunDir) -> None:
    """One consistent label (gap 0), and one that prefers slot A twice: |0.9 - (1 - 0.7)| = 0.6."""
    biased = judgment("b", "p2", "a", "b", forward=0.9, swapped=0.7)
    entry = judged(run, win("w", "p1"), biased)
    assert entry.position_consistency == 0.5
    assert entry.mean_position_gap == pytest.approx(0.3)


def test_principles_are_told_apart(run: RunDir) -> None:
    entry = judged(run, win("w", "p1", "help"), loss("l", "p2", "harm"), win("v", "p3", "harm"))
    assert entry.by_principle == {
        "harm": PrincipleWins(win_rate=0.5, n=2),
        "help": PrincipleWins(win_rate=1.0, n=1),
    }


def test_interval_is_clustered_by_prompt(run: RunDir) -> None:
    """Twenty labels, over twenty prompts and over four: fewer prompts, wider interval."""
    names = [f"n{i}" for i in range(20)]
    many = judged(run, *[(win if i % 2 else loss)(n, n) for i, n in enumerate(names)])
    few = judged(run, *[(win if i % 4 > 1 else loss)(n, f"p{i % 4}") for i, n in enumerate(names)])
    assert many.win_rate == few.win_rate == 0.5
    assert known(few.high) - known(few.low) > known(many.high) - known(many.low)


def test_nothing_readable_gives_no_rate(run: RunDir) -> None:
    entry = judged(run, judgment("u", "p2", "a", "b", status="unparsed", reason="?"))
    assert (entry.win_rate, entry.low, entry.num_comparisons) == (None, None, 0)


def test_matches_against_initial_come_first(run: RunDir) -> None:
    for folder in ("judge-sl_cai-vs-initial", "judge-tuned-vs-initial", "judge-tuned-vs-sl_cai"):
        judged(run, win("w", "p1"), folder=folder)
    rates = win_rates(run.root, tie_width=0.02, draws=100, seed=0)
    assert [(e.policy, e.against) for e in rates] == [
        ("tuned", "initial"),
        ("sl_cai", "initial"),
        ("tuned", "sl_cai"),
    ]


def test_a_judge_of_an_earlier_version_labeled(tmp_path: Path, run: RunDir) -> None:
    """All shards here name one model; its labels are in the parent's version alone."""
    assert deciding_judge(run) is None
    judged(run, win("w", "p1"))
    entry = known(deciding_judge(run))
    assert (entry.model, entry.fingerprint, entry.labeled) == ("scripted", "f" * 64, False)
    before = make_run(tmp_path / "before")
    write_rows(before, "preference/judge", [win("w", "p1")])
    write_json(before.dataset / "manifest.json", {"run_id": "before"})
    run.update_info(parent="before")
    assert known(deciding_judge(run)).labeled


def test_lengths_come_from_the_shards_of_both_policies(run: RunDir) -> None:
    """The longer reply always wins, three times for the policy: at equal lengths less is left."""
    texts = {f"{n}-a": "one two three" for n in "wvu"} | {"l-a": "one"}
    texts |= {f"{n}-b": "one" for n in "wvu"} | {"l-b": "one two three"}
    inputs = [
        write_rows(
            run,
            f"evaluation/sample-{policy}",
            [response(name, "p", text) for name, text in texts.items() if name.endswith(side)],
        )
        for side, policy in (("a", "tuned"), ("b", "initial"))
    ]
    judged_rows = [*(win(n, f"p{n}") for n in "wvu"), loss("l", "pl")]
    write_rows(run, "evaluation/judge-tuned-vs-initial", judged_rows, inputs=inputs)
    (entry,) = win_rates(run.root, tie_width=0.02, draws=200, seed=0)
    assert entry.win_rate == 0.75
    assert 0.6 < known(entry.length_controlled).share < 0.7
