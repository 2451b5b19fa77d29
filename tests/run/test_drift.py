"""The drift of tags and lengths from one night to the next."""

from pipeline.run.drift import Profile, drift, lengths_differ, shares_differ


def test_shares_by_the_exact_test() -> None:
    """0 of 10 and 10 of 10: 2 of the C(20, 10) = 184,756 ways, so p = 0.00001. 0 of 5 and 5 of 5:
    2 of C(10, 5) = 252, so p = 0.008.
    """
    assert shares_differ((0, 10), (10, 10)) and not shares_differ((0, 5), (5, 5))
    assert not shares_differ((3, 10), (3, 10)) and not shares_differ((0, 10), (0, 10))


def test_lengths_by_ranks() -> None:
    """All of 8 above all of 8: 2 of the C(16, 8) = 12,870 orders, so p = 0.00016. Of 6 and 6: 2 of
    C(12, 6) = 924, so p = 0.002. One long text among many decides nothing.
    """
    low, high = [float(i) for i in range(8)], [float(i) for i in range(10, 18)]
    assert lengths_differ(low, high) and not lengths_differ(low[:6], high[:6])
    assert not lengths_differ([5.0] * 50, [5.0] * 49 + [9000.0])
    assert not lengths_differ([5.0] * 50, [5.0] * 50) and not lengths_differ([5.0], [7.0])


def test_lines_name_what_is_new_and_what_is_gone() -> None:
    words = {"prompt": [4.0, 6.0], "chosen": [], "rejected": [3.0]}
    before = Profile(10, {"old": 10, "both": 4}, words)
    words = {"prompt": [7.0], "chosen": [1.0], "rejected": []}
    tonight = Profile(10, {"new": 1, "both": 5}, words)
    assert drift(before, tonight) == [
        ("words, prompt", "5.0", "7.0", ""),
        ("tag both", "4 of 10", "5 of 10", ""),
        ("tag new", "0 of 10", "1 of 10", ""),
        ("tag old", "10 of 10", "0 of 10", "yes"),
    ]
