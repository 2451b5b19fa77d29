"""Options as a tree of tokens, and the gate before the engine."""

import asyncio
import math

import pytest

from pipeline.engines.options import (
    check_distinct,
    longest_only,
    option_nodes,
    sum_along,
    token_by_token_pays,
)
from pipeline.engines.vllm.token_gate import TokenGate
from pipeline.errors import ConfigError


def test_shared_first_token_is_one_node() -> None:
    """' (A)' = 7 1 9 and ' (B)' = 7 2 9 part after the 7 and end apart."""
    nodes = option_nodes([(7, 1, 9), (7, 2, 9)])
    assert nodes == {(): (7,), (7,): (1, 2), (7, 1): (9,), (7, 2): (9,)}


def test_score_is_sum_along_path() -> None:
    """The shared -0.5 counts for both: -0.5 - 0.25 - 0.125 and -0.5 - 2 - 1."""
    values = {(): {7: -0.5}, (7,): {1: -0.25, 2: -2.0}, (7, 1): {9: -0.125}, (7, 2): {9: -1.0}}
    assert sum_along([(7, 1, 9), (7, 2, 9)], values) == (-0.875, -3.5)


def test_long_options_are_scored_whole() -> None:
    assert token_by_token_pays([(1,), (2,)])
    assert token_by_token_pays([(7, 1, 9), (7, 2, 9)])
    assert not token_by_token_pays([tuple(range(20)), tuple(range(20, 40))])
    assert not token_by_token_pays([(n,) for n in range(129)])


def test_options_of_the_same_tokens_are_refused() -> None:
    with pytest.raises(ConfigError, match="no score can tell them apart"):
        check_distinct(["A", "A"], [(1,), (1,)])
    check_distinct(["No", "Yes please", "Yes"], [(1,), (2, 3), (2,)])


def test_reply_counts_for_its_longest_option() -> None:
    """Digits apart: a reply begins with 1 half of the time, and a quarter of those go on with 0.

    P(10) = 0.5 * 0.25 = 0.125, so 0.375 is left for 1; 2 begins nothing else and keeps its 0.25.
    """
    half, eighth, quarter = (math.log(p) for p in (0.5, 0.125, 0.25))
    found = longest_only([(1,), (1, 0), (2,)], [half, eighth, quarter])
    assert [math.exp(value) for value in found] == pytest.approx([0.375, 0.125, 0.25])


def test_only_the_next_longer_options_are_taken_off() -> None:
    """1, 10 and 100: the 0.1 of 100 is inside the 0.3 of 10 and must not be taken off 1 twice."""
    values = [math.log(p) for p in (0.8, 0.3, 0.1)]
    found = longest_only([(1,), (1, 0), (1, 0, 0)], values)
    assert [math.exp(value) for value in found] == pytest.approx([0.5, 0.2, 0.1])


def test_rounding_leaves_nothing_not_less() -> None:
    assert longest_only([(1,), (1, 0)], [-0.5, -0.5 + 1e-9]) == (-math.inf, -0.5 + 1e-9)
    assert longest_only([(1,), (1, 0)], [-math.inf, -math.inf]) == (-math.inf, -math.inf)


async def test_gate_keeps_tokens_within_cache() -> None:
    """Ten blocks of 16: three requests of 50 tokens take 4 blocks each, so two fit at a time."""
    gate, order, most, inside = TokenGate(10, 16), [], 0, 0

    async def ask(number: int) -> None:
        nonlocal most, inside
        async with gate.hold(50):
            order.append(number)
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.001)
            inside -= 1

    await asyncio.gather(*(ask(n) for n in range(7)))
    assert order == list(range(7))
    assert (most, gate.free_blocks) == (2, 10)


async def test_large_request_is_not_overtaken() -> None:
    """A request for the whole cache waits for all before it, and none behind it slips in."""
    gate, order = TokenGate(10, 16), []

    async def ask(name: str, tokens: int) -> None:
        async with gate.hold(tokens):
            order.append(name)
            await asyncio.sleep(0.001)

    await asyncio.gather(ask("a", 16), ask("all", 10_000), ask("b", 16), ask("c", 16))
    assert order == ["a", "all", "b", "c"]


async def test_canceled_wait_gives_its_turn_back() -> None:
    gate = TokenGate(1, 16)

    async def ask() -> None:
        async with gate.hold(16):
            await asyncio.sleep(0.01)

    first, second, third = [asyncio.create_task(ask()) for _ in range(3)]
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(first, third)
    assert second.cancelled() and gate.free_blocks == 1


async def test_waiter_cancelled_as_its_turn_comes_up_ends_as_cancelled() -> None:
    gate, go = TokenGate(1, 1), asyncio.Event()

    async def holder() -> None:
        async with gate.hold(1):
            await go.wait()

    async def waiter() -> None:
        async with gate.hold(1):
            pass

    held = asyncio.create_task(holder())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(waiter())
    await asyncio.sleep(0)
    # The holder's release, in the same tick, finds the cancelled waiter in the queue.
    go.set()
    waiting.cancel()
    ends = await asyncio.gather(held, waiting, return_exceptions=True)
    assert ends[0] is None and isinstance(ends[1], asyncio.CancelledError)
    async with asyncio.timeout(1), gate.hold(1):
        pass
