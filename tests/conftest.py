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


GROUPS = {
    "flows": ("tests/flows/",),
    "vllm": ("tests/engines/vllm/", "tests/engines/test_contract", "tests/engines/test_spellings"),
    "training": ("tests/training/",),
}
"""Tests that stay in one worker process, by how their files begin: they share a Prefect server and
the flow runs on it, or an import of many seconds (vLLM; torch, transformers and TRL).
"""


def group(nodeid: str) -> str:
    """What stays together: a group of files, or else a file."""
    file = nodeid.partition("::")[0]
    return next((name for name, starts in GROUPS.items() if file.startswith(starts)), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest: the groups, then those of Ray, which would otherwise
    be the last ones and keep one process busy while the others have nothing left.
    """

    def rank(item: pytest.Item) -> int:
        name = group(item.nodeid)
        if name in GROUPS:
            return list(GROUPS).index(name)
        return len(GROUPS) + (not name.startswith("tests/workers/"))

    items.sort(key=rank)


class Together(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """The tests of a group stay in one worker process."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """How the tests are shared out among the worker processes."""
    return Together(config, log)
