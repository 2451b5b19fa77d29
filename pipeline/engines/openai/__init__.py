"""Models behind OpenAI-compatible endpoints."""

import ipaddress
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from pipeline.config.engines import OpenAIConfig
from pipeline.engines.base import Engine, EngineKind, Use
from pipeline.errors import ConfigError

_NETWORK_VARIABLES = (
    *("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)


def check(config: OpenAIConfig) -> None:
    """The key's environment variable. Raises ConfigError, see `read_key`."""
    read_key(config)


def read_key(config: OpenAIConfig) -> str | None:
    """The endpoint's key, without the white space around it; None for an endpoint without keys.

    Raises:
        ConfigError: the variable is not set, or its value cannot be sent in a header.
    """
    if config.api_key_env is None:
        return None
    # The commonest slip is the key itself in place of its variable's name.
    is_plain = re.fullmatch(r"[A-Z_][A-Z0-9_]{,63}", config.api_key_env)
    name = config.api_key_env if is_plain else "named by `api_key_env`"
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"environment variable {name} is not set, and the endpoint {config.base_url} needs its "
            f"key there; export {name if is_plain else 'NAME'}=... and give that name in "
            "`api_key_env`"
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise ConfigError(
            f"environment variable {name} holds white space, a control character or a letter "
            "beyond ASCII inside the key, which no request can carry; copy the key again"
        )
    return key


@contextmanager
def named_variables(url: str) -> Iterator[None]:
    """Within it a client is made: a proxy or a certificate of the shell that it cannot use is a
    ConfigError.
    """
    try:
        yield
    except Exception as error:  # ImportError, ValueError, SSLError, InvalidURL of two libraries
        names = [name for name in os.environ if name.upper() in _NETWORK_VARIABLES]
        if not names:
            raise
        raise ConfigError(
            f"endpoint {url} cannot be reached with this shell's {', '.join(sorted(names))} "
            f"({error}); correct or unset it"
        ) from error


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine, where no proxy of the shell can reach it."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


async def _open(config: OpenAIConfig) -> Engine:
    from pipeline.engines.openai.engine import open_openai
    from pipeline.engines.openai.replicas import open_replicas

    return await (open_replicas if config.replicas else open_openai)(config)


async def _ask(config: OpenAIConfig, use: Use) -> str:
    from pipeline.engines.openai.question import ask_endpoint
    from pipeline.engines.openai.replicas import servers_of

    return "; ".join([await ask_endpoint(each, use) for each in servers_of(config)])


# No identity: whether a vLLM server answers, which is part of the fingerprint, only a call tells.
OPENAI = EngineKind(check=check, open=_open, ask=_ask)
