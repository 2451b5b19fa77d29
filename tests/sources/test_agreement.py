"""Agreement of two sources on shared items, against tables worked by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.sources.agreement import agreement, item_key, kappa_interval
from pipeline.sources.rows import LabeledRow
from pipeline.types import user
from tests.sources.builders import make_label


def labels(outcomes: str) -> list[LabeledRow]:
    """One item per letter: `a` prefers the text "a", `b` prefers "b"."""
    return [
        make_label(f"Q{i}", letter, "b" if letter == "a" else "a", index=i)
        for i, letter in enumerate(outcomes)
    ]


def test_kappa_of_a_known_table() -> None:
    """20 + 15 of 50 equal: observed 0.7. One side says `a` 25 times, the other 30 times: expected
    0.5 x 0.6 + 0.5 x 0.4 = 0.5, so kappa = (0.7 - 0.5) / 0.5 = 0.4 (the example of Cohen 1960's
    readers everywhere).
    """
    first = labels("a" * 25 + "b" * 25)
    second = labels("a" * 20 + "b" * 5 + "a" * 10 + "b" * 15)
    result = agreement(first, second, draws=500)
    assert (result.num_items, result.num_prompts) == (50, 50)
    assert result.kappa == pytest.approx(0.4)
    assert result.equal is not None and result.equal.share == pytest.approx(0.7)
    # Standard error of kappa here: sqrt(0.7 x 0.3 / (50 x 0.25)) = 0.13, so 0.4 +- 0.25.
    assert result.kappa_low == pytest.approx(0.15, abs=0.06)
    assert result.kappa_high == pytest.approx(0.65, abs=0.06)


def test_order_of_the_pair_does_not_matter() -> None:
    assert item_key(make_label("Q", "a", "b")) == item_key(make_label("Q", "b", "a"))
    assert item_key(make_label("Q", "a", "b")) != item_key(make_label("R", "a", "b"))


def test_prompts_are_the_unit_that_is_drawn() -> None:
    """Copies of each item add no evidence: the interval is that of single items."""
    table = np.array([[1.0, 0, 0, 0]] * 10 + [[0, 0, 0, 1.0]] * 10 + [[0, 1.0, 0, 0]] * 5)
    single = kappa_interval(table, draws=400, seed=0)
    assert kappa_interval(table * 7, draws=400, seed=0) == pytest.approx(single)
    assert single[1] - single[0] > 0.2


def test_divided_annotators_are_left_out() -> None:
    divided = [make_label("Q0", "a", "b"), make_label("Q0", "b", "a", index=2)]
    majority = [make_label("Q1", "a", "b", index=i) for i in (3, 4)] + [
        make_label("Q1", "b", "a", index=5)
    ]
    result = agreement(divided + majority, labels("aa"), draws=100)
    assert (result.num_items, result.num_split) == (1, 1)
    assert result.equal is not None and result.equal.share == 1.0


def test_no_shared_item_gives_no_number() -> None:
    result = agreement(labels("ab"), [make_label("other")])
    assert result.num_items == 0
    assert result.equal is None and math.isnan(result.kappa)


def test_dropped_rows_do_not_count() -> None:
    dropped = make_label("Q0", "b", "a", reason="tie")
    result = agreement([*labels("ab"), dropped], labels("ab"), draws=100)
    assert result.num_split == 0 and result.kappa == 1.0


def test_white_space_and_unicode_form_hide_no_item() -> None:
    """Importers strip, a model's reply may end in a line break; \u00e9 has two Unicode forms."""
    people = [make_label("Q", "caf\u00e9", "no"), make_label("R", "yes", "no", index=2)]
    ours = [
        replace(people[0], chosen="cafe\u0301\n"),
        replace(people[1], messages=(user("R\n"),), chosen=" no", rejected="yes "),
    ]
    result = agreement(people, ours, draws=10)
    assert result.num_items == 2
    assert result.equal is not None and result.equal.share == 0.5
    blank = [replace(people[0], rejected="caf\u00e9 ")]
    assert agreement(blank, blank).num_items == 0
