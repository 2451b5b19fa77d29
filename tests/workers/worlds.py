"""Scripted models for workers' tests: one that kills its own process at a prompt, once or for
ever.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.factories import recipe_factory
from pipeline.engines import ScriptedEngine
from pipeline.errors import PromptTooLongError
from pipeline.types import Messages
from tests.run import scripted_world


@recipe_factory
def make_engine(
    poison: str = "", too_long: str = "", once: str = "", log: str = ""
) -> ScriptedEngine:
    """The model of `scripted_world`, on which a worker dies.

    Args:
        poison: every worker that is asked this dies.
        too_long: a prompt that does not fit the context.
        once: folder; the first worker that finds it empty dies at its first critique.
        log: file to which each reply adds the number of its process.
    """
    inner = scripted_world.make_engine()
    driver = os.environ.get("DRIVER_OF_TEST") == str(os.getpid())

    def die(messages: Messages) -> None:
        if driver:
            raise RuntimeError("the driver must not make rows")
        text = messages[-1].content
        if poison and poison in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if once and "Critique" in text and not any(Path(once).iterdir()):
            (Path(once) / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def reply(messages: Messages, seed: int) -> str:
        die(messages)
        if too_long and too_long in messages[-1].content:
            raise PromptTooLongError("700 of 512")
        if log:
            with open(log, "a") as stream:
                stream.write(f"{os.getpid()}\n")
        return str(inner._reply(messages, seed))

    def scores(messages: Messages, options: Sequence[str]) -> Sequence[float | None]:
        assert inner._scores is not None
        return inner._scores(messages, options)

    return ScriptedEngine(reply, scores, name=inner.name, latency_s=0.01)
