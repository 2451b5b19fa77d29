"""Fixtures of all rooms."""

from tests.cli.commands import rlaif

__all__ = ["rlaif"]
