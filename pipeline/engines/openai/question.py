"""One small question to an endpoint, before a run pays for anything.

In:  the settings, and what the run wants of the model
Out: a line on what answered, or one error that says what to correct

Checked are the address, the key, the model's name and its log-probabilities. A busy server and one
that still loads its model pass, with a line that says so.
"""

import asyncio
import re

from pipeline.config.engines import OpenAIConfig
from pipeline.engines.base import Use
from pipeline.engines.openai.engine import OpenAIEngine, open_openai
from pipeline.errors import ConfigError, EngineError, FinalCallError, NoReplyError, RunStoppedError
from pipeline.types import SamplingParams, user

WAIT_S = 30.0
"""Seconds for the answer; a server may need longer to load a model."""
_TOO_FEW = re.compile(r"max_\w*tokens|output limit")
_QUESTION = (user("Answer with A or B."),)


async def ask_endpoint(config: OpenAIConfig, use: Use) -> str:
    """Connect, ask for one token, and say what answered.

    Raises:
        ConfigError: see `ask_engine`.
    """
    engine = await open_openai(config)
    try:
        async with asyncio.timeout(WAIT_S):
            ability = await _try(engine, use)
    except TimeoutError:
        pace = engine.pace
        if pace.is_silent:
            raise ConfigError(
                f"{pace.name} {pace.trouble}; start the model there, or correct `base_url`"
            ) from None
        return f"{config.base_url} {pace.trouble or f'gave no answer within {WAIT_S:.0f} s'}"
    except (EngineError, RunStoppedError) as error:
        what = str(error).partition("; correct that, then")[0]
        raise ConfigError(f"{what}; correct that before the run") from error
    finally:
        await engine.close()
    return f"{config.base_url} answers ({engine.version}){ability}"


async def _try(engine: OpenAIEngine, use: Use) -> str:
    """The question itself; returns what is worth adding to the line."""
    if use == "texts" or (use == "options" and engine.server is not None):
        await engine.check_exact(use)
        return ", exact log-probabilities"
    if use == "options":
        await engine.score(_QUESTION, ["A", "B"], request_id="check")
        return ", log-probabilities of first tokens"
    try:
        await engine.generate(_QUESTION, SamplingParams(max_tokens=1), seed=0, request_id="check")
    except FinalCallError as error:
        # One token may be the beginning of a thought, and some models refuse to write so little.
        if not isinstance(error, NoReplyError) and not _TOO_FEW.search(str(error)):
            raise
    return ""
