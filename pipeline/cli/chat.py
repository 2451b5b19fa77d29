"""The command `chat`: talk to a model here, for one trained by `method: dpa` in a direction."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.cli.terminal import say
from pipeline.config.engines import VllmConfig
from pipeline.engines import Engine, open_engine
from pipeline.errors import ConfigError
from pipeline.labeling.directions import directed, direction
from pipeline.run.start import find_run
from pipeline.store.files import read_json
from pipeline.types import Messages, SamplingParams, assistant, user


def chat_with(name: str, options: Sequence[str], sampling: SamplingParams) -> None:
    """Read turns from standard input, and print the replies, until it ends.

    Args:
        name: folder of a model, or a run whose tuned policy is meant.
        options: what the command line has beside the model: a weight per attribute.

    Raises:
        ConfigError: the options give no direction of this model.
        StoreError: there is neither a folder nor a run of that name.
    """
    folder = Path(name)
    if not (folder / "config.json").is_file():
        folder = find_run(name).training("preference") / "model"
    opening = opening_of(folder, options)
    config = VllmConfig(type="vllm", model=str(folder.resolve()), max_num_seqs=1)
    asyncio.run(_talk(config, opening, sampling))


def opening_of(folder: Path, options: Sequence[str]) -> Messages:
    """The system message with the direction; nothing without options.

    Raises:
        ConfigError: an option that is not an attribute of the model, a weight that is no number, or
            a direction outside the unit circle.
    """
    stored = read_json(folder / "directions.json") or {}
    names: list[str] = stored.get("attributes", [])
    weights = dict.fromkeys(names, 0.0)
    for option, text in _pairs(options):
        if option not in weights:
            known = " and ".join(f"--{each}" for each in names) or "no attributes"
            raise ConfigError(
                f"--{option} is not an attribute of {folder}, which has {known}; leave it out"
            )
        try:
            weights[option] = float(text)
        except ValueError:
            raise ConfigError(
                f"--{option} is {text!r:.40}, and needs a weight such as 0.8"
            ) from None
    if not options:
        return ()
    try:
        v = direction(*weights.values())
    except ValueError as error:
        raise ConfigError(f"{error}; give smaller weights, such as 0.8 and 0.2") from None
    return directed((), names, v)


def _pairs(options: Sequence[str]) -> Iterator[tuple[str, str]]:
    words = iter(options)
    for word in words:
        name, _, text = word.removeprefix("--").partition("=")
        yield name, text or next(words, "")


async def _talk(config: VllmConfig, opening: Messages, sampling: SamplingParams) -> None:
    async with open_engine(config) as engine:
        await talk(engine, opening, sampling)


async def talk(engine: Engine, opening: Messages, sampling: SamplingParams) -> None:
    """One conversation: a line from standard input is a turn; an empty one begins again."""
    messages, seed = opening, 0
    while True:
        try:
            text = (await asyncio.to_thread(input, "> ")).strip()
        except EOFError:
            return
        if not text:
            messages = opening
            continue
        seed += 1
        messages = (*messages, user(text))
        reply = await engine.generate(messages, sampling, seed=seed, request_id=f"turn-{seed}")
        messages = (*messages, assistant(reply.text))
        say(reply.text)
