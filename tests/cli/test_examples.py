"""The examples of `--help` are for every command, and each is what the command takes."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from pipeline.cli.app import app
from pipeline.cli.examples import EXAMPLES
from pipeline.config.paths import PROJECT_ROOT
from tests.cli.commands import Rlaif, rlaif

__all__ = ["rlaif"]


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its name after `rlaif`."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} ")
        else:
            yield before + name, command


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_every_command_has_examples() -> None:
    assert list(EXAMPLES) and set(EXAMPLES) == set(COMMANDS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_parse(name: str) -> None:
    for example in EXAMPLES[name]:
        words = shlex.split(example.removeprefix('eval "$(').removesuffix(')"'))
        start = ["rlaif", *name.split()]
        assert words[: len(start)] == start
        COMMANDS[name].make_context(name, words[len(start) :])
        for word in words:
            if "/" in word:
                assert (PROJECT_ROOT / word).is_file(), word


def test_help_ends_with_them(rlaif: Rlaif) -> None:
    shown = rlaif("submit", "--help").out
    assert all(line in shown for line in ("Examples:", *EXAMPLES["submit"]))
