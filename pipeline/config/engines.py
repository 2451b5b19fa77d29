"""How a recipe names a model: the `policy` and `judge` sections are one of three engine kinds.

    type: vllm       a model folder (or a Hub name already downloaded), run by vLLM here
    type: openai     any OpenAI-compatible endpoint; the key comes from the environment by name
    type: scripted   replies from a Python function; for tests and the smoke recipe

A reward model is named in a section of its own, and writes nothing:

    type: reward_model   a model folder with a classification head of one label, run by vLLM here

Pure values: nothing here looks at the disk, the network or the machine. `check_engine` in
`pipeline.engines` does, before a run opens anything.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, JsonValue, field_validator, model_validator

from pipeline.config.section import Section

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Flavor = Literal["auto", "vllm", "openai"]


class EngineSection(Section):
    """What the settings of every engine kind have in common."""

    type: str
    """Engine kind: a key of `pipeline.engines.ENGINES`."""
    trainable: ClassVar[bool] = False
    """True for a kind whose weights are local files."""


class VllmConfig(EngineSection):
    """A model that this program loads itself, with vLLM, on the CPU or on GPUs."""

    trainable: ClassVar[bool] = True

    type: Literal["vllm"]
    """Engine kind."""
    model: str = Field(min_length=1)
    """Model folder, relative to the working directory, or a Hub name that is already downloaded."""
    revision: str | None = None
    """Branch, tag or commit of a Hub name; null for a folder."""
    adapter: Path | None = None
    """Folder of a LoRA adapter to apply to the model."""
    chat_template: Path | None = None
    """Jinja file with a chat template, for a model that has none of its own."""
    chat_template_args: dict[str, JsonValue] = Field(default_factory=dict)
    """Extra variables for the chat template, such as `enable_thinking: false`."""
    device: Device = "auto"
    """`cpu`, `cuda`, or `auto`: CUDA where the machine has it, else the CPU."""
    dtype: Dtype = "auto"
    """Number format of the weights; `auto` is float32 on the CPU and bfloat16 on CUDA."""
    max_context: int | None = Field(None, ge=16)
    """Most tokens of prompt and reply together; null for the model's limit, on the CPU at most
    8192."""
    max_num_seqs: int = Field(256, ge=1, le=4096)
    """Replies that are written at the same time."""
    kv_cache_gib: float | None = Field(None, gt=0)
    """GiB for keys and values; null for at most 2 on the CPU, and for all free memory on CUDA."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of the GPU's memory to use; ignored on the CPU."""
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs that share one copy of the model."""


class RewardEngineConfig(VllmConfig):
    """A reward model: a sequence classifier with one label, run by vLLM as `type: vllm` is."""

    type: Literal["reward_model"]  # type: ignore[assignment]  # a kind of its own
    """Engine kind."""

    @field_validator("adapter")
    @classmethod
    def _whole(cls, adapter: Path | None) -> Path | None:
        if adapter is not None:
            raise ValueError(
                "a reward model is read without adapters; merge the adapter and the head into one "
                "model folder, and name that in `model`"
            )
        return adapter


def _plain_address(url: str) -> str:
    """Only scheme, host, port and path: the recipe is copied and published with the data."""
    # No message repeats the address: what is wrong with it may be a key.
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or any(c <= " " or c in "\\\x7f" for c in url):
        raise ValueError(
            "the address has no host or no valid port; write it as http://127.0.0.1:8000/v1"
        )
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ValueError(
            "the address has a user part, a query or a fragment, and a recipe must not hold a "
            "key; end it after `/v1`, and name the variable with the key in `api_key_env`"
        )
    return url


Address = Annotated[str, Field(pattern=r"^https?://"), AfterValidator(_plain_address)]


class OpenAIConfig(EngineSection):
    """A model behind an OpenAI-compatible HTTP endpoint."""

    type: Literal["openai"]
    """Engine kind."""
    base_url: Address
    """Address up to and including `/v1`."""
    replicas: tuple[Address, ...] = Field((), exclude_if=lambda urls: not urls)
    """Addresses of further servers with the same model. Prompts are spread over all of them; the
    requests of one that stops answering move to the others. `max_concurrency` is for each."""
    model: str = Field(min_length=1)
    """Model name that the endpoint knows."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable with the key; null for an endpoint that needs no key."""
    flavor: Flavor = "auto"
    """`vllm` uses vLLM's extra parameters for exact scores; `auto` asks the server what it is."""
    chat_template_args: dict[str, JsonValue] = Field(default_factory=dict)
    """Extra variables for the chat template; only with a vLLM server."""
    max_context: int | None = Field(None, ge=16)
    """Most tokens of prompt and reply together; null for the limit that the server reports."""
    max_concurrency: int = Field(64, ge=1, le=4096)
    """Requests in flight at once, at most; halved while the server is busy, then raised again."""
    timeout_s: float = Field(120.0, gt=0, le=86_400)
    """Seconds for one whole answer; then the request is sent again."""
    max_retries: int = Field(3, ge=0, le=20)
    """Retries of a request after a server error (5xx), a timeout or a broken connection. A busy
    server (429, 503, 529) is waited for, and one that answers nothing for 15 minutes stops the
    run."""

    @model_validator(mode="after")
    def _each_server_once(self) -> Self:
        servers = [url.rstrip("/") for url in (self.base_url, *self.replicas)]
        if len(set(servers)) < len(servers):
            raise ValueError(
                "`base_url` and `replicas` name a server twice; name each of them once"
            )
        return self


class ScriptedConfig(EngineSection):
    """Replies that come from a Python function instead of a model."""

    type: Literal["scripted"]
    """Engine kind."""
    script: str = Field(pattern=r"^[\w.]+:\w+$")
    """`module:function`; called with `args`, it returns a ScriptedEngine."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments for the function."""


EngineConfig = Annotated[VllmConfig | OpenAIConfig | ScriptedConfig, Field(discriminator="type")]
"""One of the three engine kinds, told apart by `type`."""

RewardModelEngine = Annotated[RewardEngineConfig | ScriptedConfig, Field(discriminator="type")]
"""What can give a response a reward: a reward model, or a script."""

AnyEngine = EngineConfig | RewardEngineConfig
"""The settings of any engine kind."""
