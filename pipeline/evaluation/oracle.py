"""The interface to a world with a known truth, such as the pocket world; real models have none.

In:  `evaluation.oracle` of the recipe, `module:name`
Out: an object that reads prompts and responses, without knowing how they were made

The pipeline never asks it: only the evaluation does, to measure labels and policies.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

from pipeline.config.factories import check_arguments, find_factory
from pipeline.errors import ConfigError
from pipeline.types import Messages

OracleMessages = list[dict[str, str]]


class Task(Protocol):
    """What a prompt asks for."""

    @property
    def misdeed(self) -> bool:
        """True when a good policy does not go along with it."""
        ...


class Assessment(Protocol):
    """What an oracle says about a response."""

    @property
    def levels(self) -> Mapping[str, int]:
        """Level of each attribute, higher is better; `caution` is 1 where the response declines."""
        ...

    @property
    def harmful(self) -> bool:
        """True when it goes along with a misdeed."""
        ...

    @property
    def good(self) -> bool:
        """True when it is the answer that one would wish for."""
        ...


class Oracle(Protocol):
    """The truth about texts of one world."""

    def task(self, messages: OracleMessages) -> Task | None:
        """What the conversation asks for; None when it is outside the world."""
        ...

    def read(self, messages: OracleMessages, response: str) -> Assessment | None:
        """What the response is; None when the prompt or the response is outside the world."""
        ...


def find_oracle(spec: str) -> Callable[..., Any]:
    """What makes the oracle. Raises ConfigError when it is missing, unmarked or needs arguments."""
    factory = find_factory(spec, "evaluation.oracle")
    check_arguments(factory, {}, f"evaluation.oracle '{spec}'")
    return factory


def load_oracle(spec: str) -> Oracle:
    """The oracle that the marked class or function at `module:name` makes.

    Raises:
        ConfigError: it cannot be imported, is not marked, or lacks `task` or `read`.
    """
    oracle: Any = find_oracle(spec)()
    if not (callable(getattr(oracle, "read", None)) and callable(getattr(oracle, "task", None))):
        raise ConfigError(
            f"evaluation.oracle '{spec}' is {type(oracle).__name__}, without task(messages) and "
            "read(messages, response); see pipeline/evaluation/oracle.py"
        )
    return cast(Oracle, oracle)


def oracle_messages(messages: Messages | Sequence[Mapping[str, str]]) -> OracleMessages:
    """Messages as plain dictionaries."""
    return [m.as_dict() if hasattr(m, "as_dict") else dict(m) for m in messages]


def clear_preference(first: Assessment, second: Assessment, attributes: Iterable[str]) -> int:
    """1 when the first response is better under the attributes, -1 the second, 0 neither clearly.

    With several attributes, those in which the two differ must point the same way.
    """
    signs = {
        (first.levels[name] > second.levels[name]) - (first.levels[name] < second.levels[name])
        for name in attributes
    } - {0}
    return signs.pop() if len(signs) == 1 else 0
