"""Ids that are recognized and drawn without being held in memory."""

import heapq

import pytest

from pipeline.data.id_set import IdSet
from pipeline.errors import StoreError
from pipeline.ids import uniform


def test_each_id_is_new_once() -> None:
    ids = IdSet(["a"])
    assert [ids.add("a"), ids.add("b"), ids.add("b")] == [False, True, False]
    assert "b" in ids and "c" not in ids and list(ids) == ["a", "b"]


def test_nth_is_the_largest_of_the_smallest() -> None:
    numbers = {str(n): uniform("draw", n) for n in range(500)} | {"tie 2": 0.5, "tie 1": 0.5}
    ids = IdSet()
    for name, number in numbers.items():
        ids.add(name, number)
    smallest = heapq.nsmallest(400, ((number, name) for name, number in numbers.items()))
    for n in (1, 2, 250, 400):
        assert ids.nth(n) == smallest[n - 1]
    assert ids.nth(503) is None and ids.nth(10**30) is None


def test_full_disk_is_one_line() -> None:
    ids = IdSet()
    ids._db.execute("PRAGMA max_page_count = 4")
    with pytest.raises(StoreError, match=r"full; make room, or name another folder in SQLITE"):
        for number in range(10_000):
            ids.add(f"{number:024x}")
