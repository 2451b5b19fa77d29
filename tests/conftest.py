"""Fixtures of all rooms, and how property tests run everywhere."""

import pytest
from hypothesis import settings

from tests.cli.commands import rlaif

__all__ = ["rlaif"]

# One fixed set of examples, so that a failure on one machine is a failure on all.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=200)
settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one worker process, and those of all flows, which share a server
    and what ran on it. These take longest, so they begin first.
    """
    for item in items:
        shared = "flows" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("flows" if shared else str(item.path)))
    items.sort(key=lambda item: item.path.parent.name != "flows")
