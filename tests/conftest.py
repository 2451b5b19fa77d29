"""Fixtures of all rooms, and how property tests run everywhere."""

from hypothesis import settings

from tests.cli.commands import rlaif

__all__ = ["rlaif"]

# One fixed set of examples, so that a failure on one machine is a failure on all.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=200)
settings.load_profile("repeatable")
