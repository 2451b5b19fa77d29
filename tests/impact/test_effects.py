"""Changing principles moves only the draws that it must, and effects are counted by hand."""

from typing import Any

import pytest

from pipeline.constitution import Constitution, Principle
from pipeline.impact.effects import Effects, ImpactTally, Outcome, kinds_of_change

NUM_DRAWS = 4000


def constitution(count: int = 10, **weights: float) -> Constitution:
    return Constitution(
        name="tests",
        principles=tuple(
            Principle(
                id=f"p{i}",
                critique_request=f"Critique {i}.",
                revision_request=f"Revise {i}.",
                comparison_request=f"Which is better, {i}?",
                weight=weights.get(f"p{i}", 1.0),
            )
            for i in range(count)
        ),
    )


def changed(base: Constitution, name: str, **values: Any) -> Constitution:
    return base.model_copy(
        update={
            "principles": tuple(
                p.model_copy(update=values) if p.id == name else p for p in base.principles
            )
        }
    )


def moves(old: Constitution, new: Constitution) -> list[tuple[str, str]]:
    """Ids drawn before and after, for the draws that another principle won."""
    drawn = [(old.draw(7, "judge", str(i)), new.draw(7, "judge", str(i))) for i in range(NUM_DRAWS)]
    return [(a.id, b.id) for a, b in drawn if a.id != b.id]


def test_reworded_principle_keeps_all_draws() -> None:
    base = constitution()
    assert not moves(base, changed(base, "p3", comparison_request="Which is best?"))
    drawn = sum(base.draw(7, "judge", str(i)).id == "p3" for i in range(NUM_DRAWS))
    assert drawn / NUM_DRAWS == pytest.approx(1 / 10, abs=0.015)


def test_added_principle_wins_its_own_share() -> None:
    found = moves(constitution(10), constitution(11))
    assert {after for _, after in found} == {"p10"}
    assert len(found) / NUM_DRAWS == pytest.approx(1 / 11, abs=0.015)


def test_removed_principle_gives_only_its_own() -> None:
    found = moves(constitution(10), constitution(9))
    assert {before for before, _ in found} == {"p9"}
    assert len(found) / NUM_DRAWS == pytest.approx(1 / 10, abs=0.015)


def test_renamed_id_counts_as_removed_and_added() -> None:
    base = constitution()
    found = moves(base, changed(base, "p3", id="q3"))
    assert all(before == "p3" or after == "q3" for before, after in found)
    # 1/10 leave p3 and 1/10 go to q3; 1/100 of all do both.
    assert len(found) / NUM_DRAWS == pytest.approx(0.19, abs=0.02)


def test_heavier_principle_only_gains() -> None:
    found = moves(constitution(), constitution(p3=2.0))
    assert {after for _, after in found} == {"p3"}
    # From 1/10 to 2/11.
    assert len(found) / NUM_DRAWS == pytest.approx(2 / 11 - 1 / 10, abs=0.015)


def test_kinds_of_change() -> None:
    old = constitution(4)
    new = changed(changed(old, "p0", id="q0"), "p1", comparison_request="Which is best?")
    new = changed(new, "p2", weight=2.0)
    found = kinds_of_change(old, new)
    assert found["p0"] == "renamed to q0" and found["q0"] == "renamed from p0"
    assert found["p1"] == "reworded" and found["p2"] == "weight 1 -> 2"
    assert found["p3"] == "unchanged" and list(found) == ["p0", "p1", "p2", "p3", "q0"]
    assert kinds_of_change(constitution(2), constitution(3))["p2"] == "added"
    assert kinds_of_change(constitution(3), constitution(2))["p2"] == "removed"


def outcome(judgment: str, principle: str, label: float | None, kept: bool = True) -> Outcome:
    return Outcome(frozenset({judgment}), ("a", "b"), (principle,), label, kept)


def test_effects_are_counted_by_hand() -> None:
    tally = ImpactTally(tie_width=0.05)
    tally.add(outcome("1", "p", 0.9), outcome("1", "p", 0.9))
    tally.add(outcome("2", "p", 0.9), outcome("2x", "q", 0.2))  # the other side, by 0.7
    tally.add(outcome("3", "p", 0.6), outcome("3x", "q", 0.54, kept=False))  # became a tie, 0.06
    tally.add(outcome("4", "p", 0.5, kept=False), outcome("4x", "p", 0.6))  # is none any more, 0.1
    tally.add(outcome("5", "p", 0.7), outcome("5x", "q", None, kept=False))  # unreadable now
    tally.add(None, outcome("6", "q", 0.8))
    total = tally.total
    assert (total.before, total.after, total.asked_again) == (5, 5, 5)
    assert (total.relabeled, total.became_ties, total.stopped_being_ties) == (1, 1, 1)
    assert (total.pairs_gained, total.pairs_lost) == (2, 2)
    assert (total.labels_gained, total.labels_lost, total.new_texts) == (1, 1, 1)
    assert total.mean_change == pytest.approx((0 + 0.7 + 0.06 + 0.1) / 4)
    assert tally.principles["p"].before == 5 and tally.principles["p"].after == 2
    assert tally.principles["q"].before == 0 and tally.principles["q"].after == 3
    assert {key: move.after for key, move in tally.moves.items()} == {
        ("p", "q"): 2,
        ("p", "p"): 1,
        ("", "q"): 1,
    }


def test_effects_of_two_runs_together() -> None:
    """2 labels that changed by 0.1 on average and 6 by 0.3: 8 by (0.2 + 1.8) / 8 = 0.25."""
    one = Effects(before=2, relabeled=1, labeled_twice=2, mean_change=0.1)
    both = one.plus(Effects(before=6, relabeled=0, labeled_twice=6, mean_change=0.3))
    assert (both.before, both.relabeled, both.labeled_twice) == (8, 1, 8)
    assert both.mean_change == pytest.approx(0.25)
