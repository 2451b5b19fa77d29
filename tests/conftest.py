"""Fixtures of all rooms, and how property tests run everywhere."""

from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from tests.cli.commands import rlaif

__all__ = ["rlaif"]

# One fixed set of examples, so that a failure on one machine is a failure on all.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("repeatable")


SHARED = {
    f"tests/flows/test_{name}.py"
    for name in (
        *("labeler_flows", "nightly_flow", "smoke_flow", "toy_flows"),
        *("deployments", "prefect_server"),
    )
}
"""Files whose tests share a server and flow runs, which take minutes to make."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest."""
    items.sort(key=lambda item: item.path.parent.name != "flows")


class Together(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """The tests of a file stay in one worker process, and so do those of `SHARED`."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "flows" if file in SHARED else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """How the tests are shared out among the worker processes."""
    return Together(config, log)
