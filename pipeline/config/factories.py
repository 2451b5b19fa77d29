"""Functions and classes that a recipe may name as `module:name`.

A recipe may come from a stranger, and any importable function would be a command in his hands. So
only what is marked with `@recipe_factory` is taken, and only a run calls it; checking a recipe
looks its name up.

Does not: make a module harmless that runs code when it is imported. Modules are taken from where
Python looks for them, never from the recipe's folder.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import ConfigError

Factory = TypeVar("Factory", bound=Callable[..., Any])
_MARK = "__recipe_factory__"


def recipe_factory(factory: Factory) -> Factory:
    """Mark a function or a class as one that recipes may name."""
    setattr(factory, _MARK, factory)
    return factory


def find_factory(spec: str, what: str) -> Callable[..., Any]:
    """The marked function or class at `module:name`; it is not called.

    Raises:
        ConfigError: it cannot be imported, or is not marked.
    """
    module_name, _, name = spec.partition(":")
    try:
        factory: Any = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{what} '{spec}' cannot be loaded ({error}); name an importable module and a function "
            "in it"
        ) from error
    # Its own mark: not that of a base class, and not what a proxy makes up for any attribute.
    if not callable(factory) or getattr(factory, "__dict__", {}).get(_MARK) is not factory:
        raise ConfigError(
            f"{what} '{spec}' is not marked as one that recipes may call; put @recipe_factory of "
            "pipeline.config.factories above it if it is yours"
        )
    return cast("Callable[..., Any]", factory)


def check_arguments(factory: Callable[..., Any], arguments: dict[str, Any], what: str) -> None:
    """Raises ConfigError when `factory` does not take these keyword arguments, or their types."""
    try:
        signature = inspect.signature(factory, eval_str=True)
        signature.bind(**arguments)
        for name, value in arguments.items():
            parameter = signature.parameters.get(name)
            if parameter and parameter.annotation is not parameter.empty:
                TypeAdapter(parameter.annotation).validate_python(value)
    except ValidationError as error:
        reason = f"{name} is {value!r:.80}: {error.errors()[0]['msg']}"
        raise ConfigError(f"{what} does not take these args ({reason}); correct `args`") from None
    except TypeError as error:
        raise ConfigError(f"{what} does not take these args ({error}); correct `args`") from error
