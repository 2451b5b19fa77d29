"""The `check:` of a principle: its name and parameters, refused at once when they cannot work."""

import difflib
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from pipeline.config.factories import check_arguments, find_factory
from pipeline.config.section import Section
from pipeline.errors import ConfigError
from pipeline.types import is_blank

_NOTES = ("title", "description", "default", "examples", "deprecated", "definitions", "$defs")
"""Words of a JSON schema that check nothing."""


class Range(Section):
    """A count or measure of the text within bounds."""

    name: Literal["words", "sentences", "paragraphs", "characters", "reading_grade"]
    """What is measured."""
    min: float | None = Field(None, ge=0)
    """Least allowed value, if any."""
    max: float | None = Field(None, ge=0)
    """Greatest allowed value, if any."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError(f"the check '{self.name}' has no bound; give it min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(
                f"min {self.min:g} is above max {self.max:g}, so that no text fits; exchange them"
            )
        return self


class Phrases(Section):
    """Words or phrases that a text must have, or must not have."""

    name: Literal["required", "forbidden"]
    """Which of the two."""
    phrases: tuple[str, ...] = Field(min_length=1)
    """Each is found as whole words."""
    match_case: bool = False
    """True when capital letters count."""

    @field_validator("phrases")
    @classmethod
    def _visible(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        return _not_blank(phrases)


class Edges(Section):
    """The beginning or the end of a text."""

    name: Literal["starts_with", "ends_with"]
    """Which of the two."""
    texts: tuple[str, ...] = Field(min_length=1)
    """One of them is needed."""

    @field_validator("texts")
    @classmethod
    def _visible(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(text.strip() for text in _not_blank(texts))


class Pattern(Section):
    """A regular expression."""

    name: Literal["pattern"]
    """A regular expression."""
    pattern: str = Field(min_length=1)
    """In the syntax of RE2, which has no look-around and no back-references and takes linear time.
    `(?i)` at the beginning ignores case; `\\b` and `\\w` know ASCII letters only."""
    present: bool = True
    """False when nothing may match."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, expression: str) -> str:
        _compile(expression)
        return expression


class Spelling(Section):
    """American or British spelling."""

    name: Literal["spelling"]
    """American or British spelling."""
    variant: Literal["US", "UK"]
    """The one that is wanted."""


class Language(Section):
    """The language of the text."""

    name: Literal["language"]
    """The language of the text."""
    language: str
    """ISO 639-1 code, such as `en`."""

    @field_validator("language")
    @classmethod
    def _known(cls, code: str) -> str:
        from pipeline.checks.formats import languages

        if code not in languages():
            raise ValueError(
                f"the language '{code}' is not one that the detector knows; write an ISO 639-1 "
                "code such as en, de or zh"
            )
        return code


class Json(Section):
    """JSON, and nothing else."""

    name: Literal["json"]
    """JSON, and nothing else."""
    json_schema: dict[str, JsonValue] = Field(default_factory=dict)
    """JSON Schema (draft 2020-12) of the value; any value without one."""

    @field_validator("json_schema")
    @classmethod
    def _is_schema(cls, schema: dict[str, JsonValue]) -> dict[str, JsonValue]:
        from jsonschema import Draft202012Validator, SchemaError

        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise ValueError(
                f"the JSON schema is not valid at {error.json_path} ({error.message[:120]}); "
                "correct it"
            ) from None
        for expression in _values_of("pattern", schema):
            _compile(expression)
        for reference in (*_values_of("$ref", schema), *_values_of("$dynamicRef", schema)):
            _resolve(reference, schema)
        for place in _schemas(schema):
            _known_words(place)
        probes: tuple[JsonValue, ...] = (None, {}, [], "", 0)
        try:
            for value in probes:
                Draft202012Validator(schema).is_valid(value)
        except RecursionError:
            raise ValueError(
                "the JSON schema refers to itself without an end, so that no response could be "
                "checked; write what it stands for"
            ) from None
        return schema


class Plain(Section):
    """A check without parameters."""

    name: Literal[
        "no_lists",
        "no_headings",
        "no_emoji",
        "no_exclamation_marks",
        "no_first_person",
        "question",
        "python",
    ]
    """What is checked."""


class Function(Section):
    """A function of yours."""

    name: Literal["function"]
    """A function of yours."""
    factory: str = Field(pattern=r"^[\w.]+:\w+$")
    """`module:name` of a function marked with `@recipe_factory`. Called with `args`, it returns a
    function of the response's text and the conversation before it that returns a CheckResult."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments for the factory."""

    @model_validator(mode="after")
    def _can_be_called(self) -> Self:
        try:
            check_arguments(find_factory(self.factory, "check"), self.args, f"'{self.factory}'")
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self


CheckConfig = Annotated[
    Range | Phrases | Edges | Pattern | Spelling | Language | Json | Plain | Function,
    Field(discriminator="name"),
]
"""One of the checks of `CHECKS`, told apart by `name`."""


def _compile(expression: str) -> None:
    import re2

    from pipeline.checks.formats import regex

    try:
        regex(expression)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        said = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason
        raise ValueError(
            f"the pattern '{expression}' does not compile ({said}); correct it, in the syntax of "
            "RE2"
        ) from None


def _resolve(reference: str, schema: dict[str, JsonValue]) -> None:
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    try:
        root = DRAFT202012.create_resource(schema)
        Registry().resolver_with_root(root).lookup(reference)
    except Unresolvable:
        raise ValueError(
            f"the JSON schema has no '{reference}', and nothing is fetched; write it under '$defs'"
        ) from None


def _schemas(schema: JsonValue) -> Iterator[dict[str, JsonValue]]:
    """The schema and all schemas in it, wherever the specification has one."""
    if isinstance(schema, dict):
        yield schema
        for key, inner in schema.items():
            if key in ("properties", "$defs", "definitions", "dependentSchemas"):
                inner = list(inner.values()) if isinstance(inner, dict) else []
            elif key in ("enum", "const", "default", "examples", "dependentRequired"):
                continue
            for each in inner if isinstance(inner, list) else [inner]:
                yield from _schemas(each)


def _known_words(schema: dict[str, JsonValue]) -> None:
    """Raises ValueError for a word that JSON Schema would pass over, or that takes any time."""
    from jsonschema import Draft202012Validator

    if "patternProperties" in schema:
        raise ValueError(
            "the JSON schema has 'patternProperties', whose expressions are not bound in time; "
            "write 'propertyNames' with a 'pattern'"
        )
    known = {*Draft202012Validator.VALIDATORS, *_NOTES}
    for word in schema.keys() - known:
        if meant := difflib.get_close_matches(word, known, n=1, cutoff=0.8):
            raise ValueError(f"the JSON schema has '{word}'; did you mean '{meant[0]}'?")


def _values_of(key: str, schema: JsonValue) -> Iterator[str]:
    """Every text under a key, at any depth of a JSON schema."""
    if isinstance(schema, dict):
        if isinstance(value := schema.get(key), str):
            yield value
        schema = list(schema.values())
    for inner in schema if isinstance(schema, list) else ():
        yield from _values_of(key, inner)


def _not_blank(texts: tuple[str, ...]) -> tuple[str, ...]:
    if any(map(is_blank, texts)):
        raise ValueError("one of the texts is empty, and every response has that; remove it")
    return texts
