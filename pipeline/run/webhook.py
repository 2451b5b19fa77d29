"""A message to a webhook when a run fails, stops at its audit, or promotes its policy.

The address is a secret of most services: a recipe names the environment variable that has it. A
webhook that does not answer ends nothing.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

from pipeline.engines.openai import is_loopback
from pipeline.errors import AuditError, ConfigError, PipelineError
from pipeline.progress import current_progress
from pipeline.run.context import PROMOTED
from pipeline.store import RunDir

TIMEOUT_S = 10.0


def webhook_address(variable: str) -> str:
    """The address in an environment variable.

    Raises:
        ConfigError: it is not set, or is not an http address; the value is never shown.
    """
    address = os.environ.get(variable, "")
    try:
        parts = urlsplit(address)
        # Both find wrong addresses that the other takes; reading the port checks it.
        usable = bool(parts.hostname and httpx.URL(address).host and parts.port != 0)
    except (httpx.InvalidURL, ValueError):
        usable = False
    if not usable or parts.scheme not in ("http", "https"):
        found = "is not an http(s) address" if address else "is not set"
        raise ConfigError(
            f"webhook_env names {variable}, but that environment variable {found}; set it to the "
            "address of the webhook, or remove webhook_env"
        )
    return address


@contextmanager
def reporting(run: RunDir, variable: str | None) -> Iterator[None]:
    """Within it, what ends a run early is sent to a webhook, unless it was stopped by hand.

    Args:
        variable: the environment variable with the address; None to send nothing.
    """
    if variable is None:
        yield
        return
    try:
        yield
    except AuditError as error:
        _send(run, variable, "audit", str(error))
        raise
    except (KeyboardInterrupt, asyncio.CancelledError, GeneratorExit):
        raise
    except Exception as error:
        # The text of a bug may have anything in it; that of our own errors is for people.
        known = isinstance(error, PipelineError)
        _send(run, variable, "failure", str(error) if known else type(error).__name__)
        raise


def send_promotion(run: RunDir, variable: str | None) -> None:
    """Send that a run promotes its policy, unless run.json says so already.

    Args:
        variable: as of `reporting`.
    """
    if variable is not None and run.info().get("gate") != PROMOTED:
        _send(run, variable, "promotion", f"run {run.run_id} promoted its policy")


def _send(run: RunDir, variable: str, event: str, message: str) -> None:
    values = {"event": event, "run": run.run_id, "text": message, "report": str(run.report)}
    try:
        address = webhook_address(variable)
        client = httpx.Client(timeout=TIMEOUT_S, trust_env=not is_loopback(address))
        # The body of the answer is not read: it may have no end.
        with client, client.stream("POST", address, json=values) as answer:
            answer.raise_for_status()
    except Exception as error:  # a proxy of the shell that cannot be used is an ImportError
        kind = type(error).__name__
        status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else kind
        current_progress().note(f"the webhook in {variable} did not take the message ({status})")
