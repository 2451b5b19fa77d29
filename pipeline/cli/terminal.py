"""Lines for the terminal. The names and texts in them come from anyone.

Output is no part of the work: where it cannot be written, since its disk is full or its reader has
gone, what follows goes nowhere and the command continues.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from pipeline.errors import printable

STDOUT, STDERR = 1, 2


def say(text: str, err: bool = False) -> None:
    """Print a line, in which nothing controls the terminal, reorders or hides text."""
    with writing(STDERR if err else STDOUT):
        typer.echo(printable(text), err=err)


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
    """Open what the caller has closed: the next file would take its number, and get its lines."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
