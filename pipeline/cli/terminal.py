"""Lines for the terminal. The names and texts in them come from anyone.

Output is no part of the work: where it cannot be written, since its disk is full or its reader has
gone, what follows goes nowhere and the command continues.
"""

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import isfinite
from typing import Annotated, Any

import typer

from pipeline.errors import printable

STDOUT, STDERR = 1, 2
FOR_PROGRAMS: ContextVar[bool] = ContextVar("for_programs", default=False)
"""True while a command prints JSON: lines for people go to stderr then."""
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON value for programs; lines for people go to stderr.",
        callback=lambda wanted: _print_for(wanted),
    ),
]


def _print_for(programs: bool) -> bool:
    FOR_PROGRAMS.set(programs)
    return programs


def say(text: str, err: bool = False) -> None:
    """Print a line, in which nothing controls the terminal, reorders or hides text."""
    err = err or FOR_PROGRAMS.get()
    with writing(STDERR if err else STDOUT):
        typer.echo(printable(text), err=err)


def print_json(value: object) -> None:
    """Print a value as JSON on standard output; a number that is not finite is null."""
    with writing(STDOUT):
        typer.echo(json.dumps(_plain(value), indent=1, default=str))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(inner) for inner in value]
    return value


@contextmanager
def writing(descriptor: int) -> Iterator[None]:
    """Within it, output that cannot be written is lost instead of ending the command; a line on
    the other stream says so, but for a reader that wanted no more.
    """
    try:
        yield
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        if descriptor == STDOUT and not isinstance(error, BrokenPipeError):
            say(
                f"standard output cannot be written ({error.strerror}), so the rest of it is not "
                "shown; the command continues",
                err=True,
            )


def hold_standard_streams() -> None:
    """Open what the caller has closed: the next file would take its number, and get its lines.

    A character that the terminal's encoding lacks, as in the locale C, is shown as an escape.
    """
    FOR_PROGRAMS.set(False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
