"""Fixtures of all rooms; how property tests run, and how pytest-xdist shares out the tests."""

import pytest
from hypothesis import settings

from tests.cli.commands import rlaif

__all__ = ["rlaif"]

# One fixed set of examples, so that a failure on one machine is a failure on all.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=200)
settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, and all tests of flows, which share a server."""
    for item in items:
        is_flow = "flows" in item.path.parts
        item.add_marker(pytest.mark.xdist_group("flows" if is_flow else item.path.stem))
