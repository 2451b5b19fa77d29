"""Counts the prompt tokens that a vLLM backend finds in its prefix cache."""

from typing import Any

from pipeline.engines.vllm.engine import Backend


class CachedTokens:
    """`watch` goes between an engine and its backend (`open_vllm(config, counter.watch)`)."""

    def __init__(self) -> None:
        self.total = 0

    def watch(self, backend: Backend) -> Backend:
        """The backend, its requests counted."""
        run = backend.run

        async def counted(request_id: str, token_ids: list[int], params: Any) -> Any:
            output = await run(request_id, token_ids, params)
            self.total += output.num_cached_tokens or 0
            return output

        backend.run = counted  # type: ignore[method-assign]  # of this one backend
        return backend
