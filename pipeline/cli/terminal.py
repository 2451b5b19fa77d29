"""Lines for the terminal. The names and texts in them come from anyone."""

import typer

from pipeline.errors import printable


def say(text: str, err: bool = False) -> None:
    """Print a line, in which nothing controls the terminal, reorders or hides text."""
    typer.echo(printable(text), err=err)
