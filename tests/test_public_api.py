"""What `import pipeline` offers, enumerated."""

import importlib
import re

import pytest

import pipeline


def test_every_public_name_exists() -> None:
    for name in pipeline.__all__:
        assert getattr(pipeline, name).__doc__, name


def test_names_are_listed_once_and_sorted() -> None:
    assert list(pipeline.__all__) == sorted(set(pipeline.__all__))
    assert set(pipeline.__all__) <= set(dir(pipeline))


def test_names_are_those_of_their_homes() -> None:
    for name, home in pipeline._HOMES.items():
        assert getattr(pipeline, name) is getattr(importlib.import_module(home), name)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'start_rum'"):
        pipeline.start_rum  # noqa: B018


def test_errors_have_exit_codes() -> None:
    """2 for what a person can fix, 3 for labels that failed their audit, 1 for the rest."""
    from pipeline import errors

    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.PipelineError)
    ]
    named = re.findall(r"^ *(\w+Error)\b", errors.__doc__ or "", flags=re.M)
    assert sorted(named) == sorted(kind.__name__ for kind in kinds), "the docstring shows the tree"
    for kind in kinds:
        expected = (
            2 if issubclass(kind, errors.UserError) else 3 if kind is errors.AuditError else 1
        )
        assert kind.exit_code == expected and kind.__doc__
