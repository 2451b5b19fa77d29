"""vLLM, started by us: one engine class over two backends.

In:  messages
Out: text, or exact log-probabilities of whole strings

On the CPU the engine core runs in this process (`in_process.py`: ready in a third of the time and
twice as fast on two cores); on CUDA vLLM runs its own processes (`async_llm.py`). Both take token
ids and give back finished requests; everything that a result depends on is in this file.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from pipeline.config.engines import RewardEngineConfig, VllmConfig
from pipeline.engines.base import Identity, finish_reason, no_rewards
from pipeline.engines.checks import device_for, dtype_for, model_folder
from pipeline.engines.options import (
    TokenIds,
    longest_only,
    option_nodes,
    sum_along,
    token_by_token_pays,
)
from pipeline.engines.reply import make_generation, opens_thought
from pipeline.engines.spellings import TOP_TOKENS, forms_may_matter, other_forms
from pipeline.engines.vllm import identity
from pipeline.engines.vllm.chat import ChatRenderer, Rendered, load_renderer
from pipeline.engines.vllm.settings import vllm_environment
from pipeline.engines.vllm.token_gate import TokenGate
from pipeline.errors import EngineDeadError, EngineError, PromptTooLongError
from pipeline.types import Generation, Messages, OptionScores, SamplingParams

_SEED_BITS = 2**63 - 1
_CACHE_SHARE = 0.95  # the rest is for blocks that are only partly filled or being copied


class Backend(Protocol):
    """A running vLLM that answers token ids."""

    version: str
    max_context: int
    num_blocks: int
    block_size: int

    async def run(self, request_id: str, token_ids: list[int], params: Any) -> Any:
        """The finished `vllm.RequestOutput`, or `PoolingRequestOutput` for pooling parameters.

        Raises:
            EngineDeadError: the engine ended.
            EngineError: vLLM refused this request.
        """
        ...

    async def close(self) -> None:
        """End threads or processes and give the memory back."""
        ...


class VllmEngine:
    """An Engine over a vLLM backend."""

    def __init__(
        self,
        backend: Backend,
        renderer: ChatRenderer,
        identity: Identity,
        *,
        gives_rewards: bool = False,
    ) -> None:
        from vllm import PoolingParams
        from vllm import SamplingParams as VllmSampling
        from vllm.sampling_params import RequestOutputKind

        self.name, self.fingerprint = identity.name, identity.fingerprint
        self.version, self.max_context = backend.version, backend.max_context
        self.kv_cache_tokens = backend.num_blocks * backend.block_size
        self._backend: Backend | None = backend
        self._renderer = renderer
        self._gate = TokenGate(int(backend.num_blocks * _CACHE_SHARE), backend.block_size)
        self._params = VllmSampling
        # The raw logit: with one label vLLM would give its sigmoid by default.
        logit = PoolingParams(task="classify", use_activation=False)
        self._pooling = logit if gives_rewards else None
        self._final_only = RequestOutputKind.FINAL_ONLY
        self._stop_ids = list(renderer.end_of_turn_ids)

    async def generate(
        self, messages: Messages, sampling: SamplingParams, *, seed: int, request_id: str
    ) -> Generation:
        """One reply; see `Engine.generate`."""
        prompt = self._renderer.prompt(messages)
        params = self._params(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop),
            seed=seed & _SEED_BITS,
            stop_token_ids=self._stop_ids,
            output_kind=self._final_only,
            # Without stop strings the text is needed only once, at the end.
            detokenize=bool(sampling.stop),
            skip_clone=True,
        )
        output = await self._run(request_id, prompt.token_ids, params, sampling.max_tokens)
        reply = output.outputs[0]
        text = self._text_of(reply, sampling.stop)
        if opens_thought(prompt.text):
            text = f"<think>{text}"
        reason = finish_reason(reply.finish_reason)
        return make_generation(
            text,
            reason,
            len(prompt.token_ids),
            len(reply.token_ids),
            output.num_cached_tokens or 0,
            count_thought=lambda thought: len(self._renderer.encode(thought)) or None,
        )

    def _text_of(self, reply: Any, stop: tuple[str, ...]) -> str:
        """The generated text up to a stop string."""
        if stop and self._renderer.thought_marks.isdisjoint(reply.token_ids):
            return str(reply.text)
        text = self._renderer.decode(reply.token_ids)
        # vLLM's own text has lost the marks of a thought.
        return text[: min((at for s in stop if (at := text.find(s)) >= 0), default=len(text))]

    async def score(
        self, messages: Messages, options: Sequence[str], *, request_id: str, reply_prefix: str = ""
    ) -> OptionScores:
        """Exact log-probability of each whole option; see `Engine.score`."""
        prompt = self._renderer.prompt(messages, reply_prefix)
        ids = self._renderer.option_ids(prompt, options)
        by_token = token_by_token_pays(ids)
        score = self._score_nodes if by_token else self._score_whole
        scores = await score(prompt, ids, request_id)
        own = sum(math.exp(value) for value in scores.logprobs if value is not None)
        if not forms_may_matter(own):
            return scores
        return replace(
            scores,
            num_calls=scores.num_calls + 1,
            unreadable=other_forms(options, own, await self._first_tokens(prompt, ids, request_id)),
        )

    async def score_reply(self, messages: Messages, *, request_id: str) -> tuple[float, int]:
        """Log-probability and token count of the last message; see `Engine.score_reply`."""
        rendered, num_tokens = self._renderer.last_reply(messages)
        if num_tokens == 0:
            return 0.0, 0
        total, _ = await self._score_end(rendered.token_ids, num_tokens, request_id)
        return total, num_tokens

    async def reward(self, messages: Messages, *, request_id: str) -> tuple[float, int]:
        """The logit of the classification head at the last token; see `Engine.reward`."""
        if self._pooling is None:
            no_rewards(self.name)
        token_ids = self._renderer.conversation(messages).token_ids
        output = await self._run(request_id, token_ids, self._pooling, 0)
        if output.error is not None:
            raise EngineError(f"vLLM gave no score to request {request_id}: {output.error}")
        return float(output.outputs.data.item()), len(token_ids)

    async def close(self) -> None:
        """Release the model; calling twice is harmless."""
        backend, self._backend = self._backend, None
        if backend is not None:
            await backend.close()

    async def _score_nodes(
        self, prompt: Rendered, ids: tuple[TokenIds, ...], request_id: str
    ) -> OptionScores:
        """One call for each inner node of the options' tree; the first fills the prefix cache."""
        nodes = option_nodes(ids)
        outputs = [await self._next_tokens(prompt, (), nodes[()], f"{request_id}#0")]
        outputs += await asyncio.gather(
            *(
                self._next_tokens(prompt, start, following, f"{request_id}#{index}")
                for index, (start, following) in enumerate(nodes.items())
                if start
            )
        )
        values = {
            start: {
                token_id: output.outputs[0].logprobs[0][token_id].logprob for token_id in following
            }
            for (start, following), output in zip(nodes.items(), outputs, strict=True)
        }
        return OptionScores(
            longest_only(ids, sum_along(ids, values)),
            None,
            len(prompt.token_ids),
            outputs[0].num_cached_tokens or 0,
            len(outputs),
        )

    async def _next_tokens(
        self, prompt: Rendered, start: TokenIds, following: tuple[int, ...], request_id: str
    ) -> Any:
        params = self._one_token(logprob_token_ids=list(following))
        return await self._run(request_id, [*prompt.token_ids, *start], params, 1)

    async def _first_tokens(
        self, prompt: Rendered, ids: tuple[TokenIds, ...], request_id: str
    ) -> dict[str, float]:
        """Log-probabilities (nats) of the most probable first tokens that begin no option."""
        params = self._one_token(logprobs=TOP_TOKENS)
        output = await self._run(f"{request_id}#first", prompt.token_ids, params, 1)
        begin = {option[0] for option in ids}
        listed: dict[str, float] = {}
        for token_id, value in output.outputs[0].logprobs[0].items():
            if token_id not in begin:
                text = self._renderer.decode_after(ids[0][0], token_id)
                listed[text] = max(value.logprob, listed.get(text, -math.inf))
        return listed

    async def _score_whole(
        self, prompt: Rendered, ids: tuple[TokenIds, ...], request_id: str
    ) -> OptionScores:
        """One pass over prompt and option for each option; for long options."""
        scores = await asyncio.gather(
            *(
                self._score_end([*prompt.token_ids, *option], len(option), f"{request_id}#{index}")
                for index, option in enumerate(ids)
            )
        )
        return OptionScores(
            longest_only(ids, [total for total, _ in scores]),
            None,
            len(prompt.token_ids),
            sum(cached for _, cached in scores),
            len(scores),
        )

    async def _score_end(
        self, token_ids: list[int], num_last: int, request_id: str
    ) -> tuple[float, int]:
        """Sum of log-probabilities of the last tokens given those before, and cached tokens.

        vLLM leaves the prefix cache alone for prompt log-probabilities, since positions that are
        found there get none. Only the last ones are needed here, so the cache is read, and the
        pass is made in full when it held some of those too.
        """
        first = len(token_ids) - num_last
        for use_cache in (True, False):
            params = self._one_token(prompt_logprobs=0, skip_reading_prefix_cache=not use_cache)
            output = await self._run(request_id, token_ids, params, 1)
            cached = output.num_cached_tokens or 0
            # From the end: what was found in the cache may be missing at the start of the list.
            listed = list(zip(output.prompt_logprobs[-num_last:], token_ids[first:], strict=True))
            # A token's log-probability is computed at the position before it.
            if cached < first and all(values and token in values for values, token in listed):
                break
        total = sum(values[token].logprob for values, token in listed)
        return total, cached

    def _one_token(self, **arguments: Any) -> Any:
        """Sampling parameters of a call that is made for its log-probabilities."""
        return self._params(
            max_tokens=1,
            temperature=0.0,
            output_kind=self._final_only,
            detokenize=False,
            skip_clone=True,
            **arguments,
        )

    async def _run(
        self, request_id: str, token_ids: list[int], params: Any, num_reply_tokens: int
    ) -> Any:
        """Wait until the tokens fit the cache, then send."""
        needed = len(token_ids) + num_reply_tokens
        if needed > self.max_context:
            raise PromptTooLongError(
                f"prompt of {len(token_ids)} tokens and reply of up to {num_reply_tokens} need "
                f"{needed}, and model '{self.name}' has a context of {self.max_context}; "
                "shorten the prompt or lower max_tokens"
            )
        if self._backend is None:
            raise EngineDeadError(f"engine '{self.name}' is closed; open it again")
        async with self._gate.hold(needed):
            if self._backend is None:
                raise EngineDeadError(f"engine '{self.name}' was closed while a call waited")
            return await self._backend.run(request_id, token_ids, params)


async def open_vllm(
    config: VllmConfig, wrap: Callable[[Backend], Backend] | None = None
) -> VllmEngine:
    """Load the model; the recipe has been checked before.

    Args:
        wrap: puts something between engine and backend that sees every request, to measure.

    Raises:
        ConfigError, MachineError: vLLM refuses the model or the settings.
    """
    device, dtype = device_for(config), dtype_for(config)
    folder = model_folder(config)
    with vllm_environment({}):  # the tokenizer's package imports torch, which reads it
        renderer = load_renderer(
            folder, chat_template=config.chat_template, template_args=config.chat_template_args
        )
    backend: Backend
    if device == "cpu":
        from pipeline.engines.vllm.in_process import open_inproc

        backend = await open_inproc(config, folder, dtype)
    else:
        from pipeline.engines.vllm.async_llm import open_async

        backend = await open_async(config, folder, dtype)
    backend = wrap(backend) if wrap is not None else backend
    return VllmEngine(
        backend, renderer, identity(config), gives_rewards=isinstance(config, RewardEngineConfig)
    )
