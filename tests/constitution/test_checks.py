"""Checks in constitution files: mistakes with their lines, contradictions, differences."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.constitution import load_constitution
from pipeline.constitution.diff import diff_constitutions
from pipeline.constitution.lint import lint_constitution
from pipeline.errors import ConfigError
from pipeline.impact.effects import kinds_of_change
from tests.constitution.builders import (
    BREVITY,
    HONESTY,
    KINDNESS,
    make_constitution,
    write_constitution,
)


def line_of(path: Path, word: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, start=1) if word in line)


@pytest.mark.parametrize(
    ("check", "word", "message"),
    [
        ({"name": "wrods", "max": 3}, "check:", "'principles.0.check.name' is 'wrods'"),
        ({"max": 3}, "check:", "'principles.0.check.name' is missing"),
        ({"name": "words", "mx": 3}, "mx:", "'principles.0.check.mx' is not a known key; did you"),
        ({"name": "sentences", "maxi": 3}, "maxi:", "not a known key; did you mean 'max'"),
        ({"name": "words", "max": "few"}, "max:", "'principles.0.check.max' is 'few'"),
        ({"name": "words"}, "check:", "has no bound"),
        ({"name": "pattern", "pattern": "(["}, "pattern: (", "does not compile"),
        ({"name": "json", "json_schema": {"type": 3}}, "json_schema:", "schema is not valid"),
        (
            {"name": "language", "language": "klingon"},
            "language: k",
            "check.language: the language",
        ),
        ({"name": "function", "factory": "os:getcwd"}, "check:", "is not marked"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, check: dict[str, Any], word: str, message: str
) -> None:
    """The line is that of the mistake, both for the loader and for the linter."""
    path = write_constitution(tmp_path / "c.yaml", {**HONESTY, "check": check}, KINDNESS)
    with pytest.raises(ConfigError) as caught:
        load_constitution(path)
    line = line_of(path, word)
    assert str(caught.value).startswith(f"constitution {path}, line {line}: ")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    (finding,) = lint_constitution(path).findings
    assert (finding.severity, finding.line) == ("error", line)


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ({"name": "words", "min": 100}, {"name": "words", "max": 50}, "at least 100 words and at"),
        ({"name": "words", "min": 30}, {"name": "characters", "max": 58}, "at most 58 characters"),
        (
            {"name": "required", "phrases": ["ok", "Free Returns"]},
            {"name": "forbidden", "phrases": ["returns"]},
            "'Free Returns' is needed",
        ),
        (
            {"name": "required", "phrases": ["a b c"]},
            {"name": "words", "min": 1, "max": 2},
            "has 3 words",
        ),
        (
            {"name": "starts_with", "texts": ["I think", "My view"]},
            {"name": "no_first_person"},
            "'I think' is needed",
        ),
        ({"name": "ends_with", "texts": ["Bye!"]}, {"name": "no_exclamation_marks"}, "'Bye!'"),
        ({"name": "json"}, {"name": "starts_with", "texts": ["Dear"]}, "JSON that starts with"),
        (
            {"name": "language", "language": "en"},
            {"name": "language", "language": "fr"},
            "the languages 'en' and 'fr'",
        ),
        (
            {"name": "spelling", "variant": "US"},
            {"name": "spelling", "variant": "UK"},
            "US and UK spelling",
        ),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_contradictions_are_refused(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], reason: str, turned: bool
) -> None:
    one, other = (second, first) if turned else (first, second)
    path = write_constitution(
        tmp_path / "c.yaml", {**HONESTY, "check": one}, KINDNESS, {**BREVITY, "check": other}
    )
    with pytest.raises(ConfigError, match="checks of 'honesty' and 'brevity' contradict") as caught:
        load_constitution(path)
    assert reason in str(caught.value)
    (finding,) = lint_constitution(path).findings
    lines = path.read_text(encoding="utf-8").splitlines()
    assert finding.line and lines[finding.line - 1].strip() == "check:" and finding.line > 8


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"name": "words", "min": 10}, {"name": "words", "max": 10}),
        ({"name": "words", "min": 10}, {"name": "sentences", "max": 2}),
        (
            {"name": "required", "phrases": ["return"]},
            {"name": "forbidden", "phrases": ["returns"]},
        ),
        ({"name": "starts_with", "texts": ["I", "Yes"]}, {"name": "no_first_person"}),
        ({"name": "required", "phrases": ["- a"]}, {"name": "no_lists"}),
        ({"name": "required", "phrases": ["a"]}, {"name": "words", "min": 50}),
        ({"name": "json"}, {"name": "starts_with", "texts": ["Dear", "["]}),
    ],
)
def test_checks_that_fit_are_taken(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    path = write_constitution(
        tmp_path / "c.yaml", {**HONESTY, "check": first}, {**BREVITY, "check": second}
    )
    assert len(load_constitution(path).checked) == 2
    assert lint_constitution(path).findings == ()


def test_diff_names_changed_checks() -> None:
    three, four = {"name": "words", "max": 3}, {"name": "words", "max": 4}
    old = make_constitution({**HONESTY, "check": three}, {**KINDNESS, "check": three}, BREVITY)
    new = make_constitution(
        {**HONESTY, "check": four}, KINDNESS, {**BREVITY, "id": "terse", "check": three}
    )
    diff = diff_constitutions(old, new)
    assert [(c.principle_id, c.before, c.after) for c in diff.rechecked] == [
        ("honesty", '{"max":3.0,"name":"words"}', '{"max":4.0,"name":"words"}'),
        ("kindness", '{"max":3.0,"name":"words"}', ""),
    ]
    # With another check, `brevity` is another rule: it is not just renamed.
    assert (diff.added, diff.removed, diff.num_unchanged) == (("terse",), ("brevity",), 0)
    assert 'rechecked kindness: {"max":3.0,"name":"words"} -> none' in diff.text()
    assert kinds_of_change(old, new)["honesty"] == "rechecked"
    assert diff_constitutions(old, old).num_unchanged == 3
