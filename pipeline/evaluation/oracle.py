"""The seam to a world with a known truth, such as the pocket world; real models have none.

In:  `evaluation.oracle` of the recipe, `module:name`
Out: an object that reads prompts and responses, without knowing how they were made

The pipeline never asks it: only the evaluation does, to measure labels and policies.
"""

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from pipeline.errors import ConfigError
from pipeline.types import Messages

OracleMessages = list[dict[str, str]]


class Task(Protocol):
    """What a prompt asks for."""

    @property
    def misdeed(self) -> bool:
        """True when the right thing is not to go along with it."""
        ...


class Reading(Protocol):
    """What a response is."""

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

    def read(self, messages: OracleMessages, response: str) -> Reading | None:
        """What the response is; None when the prompt or the response is outside the world."""
        ...


def load_oracle(spec: str) -> Oracle:
    """The oracle that `module:name` names, made by calling it when it is a class or a function.

    Raises:
        ConfigError: it cannot be imported, or is no oracle.
    """
    module_name, _, name = spec.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"evaluation.oracle '{spec}' cannot be loaded ({error}); name an importable module and "
            "an oracle in it, or remove the line"
        ) from error
    oracle = found() if callable(found) else found
    if not (callable(getattr(oracle, "read", None)) and callable(getattr(oracle, "task", None))):
        raise ConfigError(
            f"evaluation.oracle '{spec}' is {type(oracle).__name__}, without task(messages) and "
            "read(messages, response); see pipeline/evaluation/oracle.py"
        )
    return oracle


def oracle_messages(messages: Messages | Sequence[Mapping[str, str]]) -> OracleMessages:
    """Messages as plain dictionaries."""
    return [m.as_dict() if hasattr(m, "as_dict") else dict(m) for m in messages]


def clear_preference(first: Reading, second: Reading, attributes: Iterable[str]) -> int:
    """1 when the first response is better under the attributes, -1 the second, 0 neither clearly.

    With several attributes, those in which the two differ must point the same way.
    """
    signs = {
        (first.levels[name] > second.levels[name]) - (first.levels[name] < second.levels[name])
        for name in attributes
    } - {0}
    return signs.pop() if len(signs) == 1 else 0
