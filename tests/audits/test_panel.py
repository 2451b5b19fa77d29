"""The worth of a panel: judges that agree in their errors are one judge."""

import pytest

from pipeline.audits.panel import LEAST, Judged, effective_judges, mean_correlation


def judge(values: str) -> Judged:
    return {(str(i),): float(value) for i, value in enumerate(values)}


def test_effective_judges_by_hand() -> None:
    """3 / (1 + 2 * 0.5) = 1.5, and 4 / (1 + 3 * 0.2) = 2.5."""
    assert effective_judges(3, 0.5) == 1.5 and effective_judges(4, 0.2) == pytest.approx(2.5)
    assert effective_judges(3, 1.0) == 1 and effective_judges(3, 0.0) == 3
    assert effective_judges(3, -0.2) == 3


def test_mean_over_all_pairs_by_hand() -> None:
    """0101... against itself is 1 and against 1010... is -1: (1 - 1 - 1) / 3. Against 0011... it
    is 0, as each of the four combinations comes equally often.
    """
    one, other = judge("01" * 10), judge("10" * 10)
    for judges, expected in ([one, one, other], -1 / 3), ([one, judge("0011" * 5)], 0.0):
        correlation, number = mean_correlation(judges) or (2.0, 0)
        assert correlation == pytest.approx(expected) and number == LEAST


def test_too_little_says_nothing() -> None:
    one = judge("01" * 10)
    assert mean_correlation([one, judge("01" * 9 + "0")]) is None
    assert mean_correlation([one, judge("1" * 20)]) is None
    assert mean_correlation([one, {}]) is None
