"""Checks of a user: marked factories that return a function of a response and its conversation."""

import re
from collections.abc import Callable
from contextlib import suppress

from pipeline.checks import CheckResult
from pipeline.config.factories import recipe_factory
from pipeline.types import Messages

Decide = Callable[[str, Messages], CheckResult]


@recipe_factory
def at_most_commas(limit: int) -> Decide:
    """A response has at most `limit` commas."""

    def decide(text: str, conversation: Messages) -> CheckResult:
        over = text.count(",") - limit
        if over <= 0:
            return CheckResult(True)
        return CheckResult(False, f"The response has {over + limit} commas.", over)

    return decide


@recipe_factory
def answers_in_kind() -> Decide:
    """A question is answered by a question."""

    def decide(text: str, conversation: Messages) -> CheckResult:
        if conversation[-1].content[-1] == text[-1]:
            return CheckResult(True)
        return CheckResult(False, "The response ends in another way than its prompt.", 1.0)

    return decide


@recipe_factory
def raises() -> Decide:
    """Breaks for every response."""

    def decide(text: str, conversation: Messages) -> CheckResult:
        raise KeyError("no table")

    return decide


@recipe_factory
def says_true() -> Callable[[str, Messages], bool]:
    """Returns no CheckResult."""
    return lambda text, conversation: True


@recipe_factory
def never_ends() -> Decide:
    """Loops for every response."""

    def decide(text: str, conversation: Messages) -> CheckResult:
        while True:
            with suppress(Exception):  # handles what any response raises
                text += ""

    return decide


@recipe_factory
def never_returns() -> Decide:
    """Stays within one call of C for every response."""

    def decide(text: str, conversation: Messages) -> CheckResult:
        return CheckResult(bool(re.fullmatch("(a+)+b", "a" * 64)))

    return decide
