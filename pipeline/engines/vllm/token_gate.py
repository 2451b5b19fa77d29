"""Let in only as many tokens as the key-value cache holds, first come, first served.

In:  the tokens that a request may need at most (prompt and reply)
Out: a wait until they fit

With more in flight than the cache holds, blocks are evicted or requests pre-empted, and prompts
that extend each other are computed again (hit share 0.19 instead of 0.50).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class TokenGate:
    """A first-come-first-served limit on tokens, counted in whole cache blocks.

    Args:
        num_blocks: blocks that the cache has for use.
        block_size: tokens in a block.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks, self.block_size = max(1, num_blocks), block_size
        self.free_blocks = self.num_blocks
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, num_tokens: int) -> AsyncIterator[None]:
        """Wait until the tokens fit, hold them inside the block; one larger than all waits for
        all.
        """
        blocks = min(-(-num_tokens // self.block_size), self.num_blocks)
        await self._take(blocks)
        try:
            yield
        finally:
            self.free_blocks += blocks
            self._wake()

    async def _take(self, blocks: int) -> None:
        if not self._waiting and blocks <= self.free_blocks:
            self.free_blocks -= blocks
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((blocks, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.free_blocks += blocks
                self._wake()
            else:
                # Whoever woke the queue in this moment may have taken it out already.
                with suppress(ValueError):
                    self._waiting.remove((blocks, turn))
                self._wake()
            raise

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.free_blocks:
            blocks, turn = self._waiting.popleft()
            if not turn.done():
                self.free_blocks -= blocks
                turn.set_result(None)
