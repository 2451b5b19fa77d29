"""A YAML file read safely into a pydantic model; every complaint names file and line.

In:  a path and the model that describes it
Out: the model, or one ConfigError line such as
     `recipe a.yaml, line 12: 'policy.temprature' is not a known key; did you mean 'temperature'?`

Repeated keys are refused: YAML itself would silently keep the last one.
"""

import difflib
import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.composer import Composer

from pipeline.config.paths import file_problem
from pipeline.errors import ConfigError

RENAMED = {"trust": "label_accuracy"}
"""Keys of earlier versions and their names now."""
MAX_DEPTH = 64
"""Levels of lists and mappings in one another."""
MAX_ALIASED = 10_000
"""Values that aliases repeat; nested aliases of 2 KB would otherwise stand for billions."""
MAX_DIGITS = 100
"""Digits of a number without quotes."""
_INT = "tag:yaml.org,2002:int"
_NO_TEXT_KEYS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "null"))
"""Of keys without quotes: `yes`, `1`, `1.5` and `~`."""
_OLD_NUMBER = re.compile(r"[-+]?0[0-9_]+|.*:.*")
"""YAML 1.1 reads 010 as 8 and 1:30 as 90."""
NO_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\U0010ffff]")
"""Controls such as NUL, and halves of surrogate pairs: no file, model or terminal takes them."""
Model = TypeVar("Model", bound=BaseModel)
_PRIVATE = {"api_key_env", "base_url", "replicas", "url_env"}
"""Keys whose value may hold a key or a password by mistake; no message repeats it."""
_SIGN_IN = re.compile(r"//[^/@\s]+@")
"""Name and password in an address."""
_NO_STRINGS = (bool, int, float, date)
"""What YAML reads no, on, 24 and 2024-01-01 as."""
KeyPath = tuple[str | int, ...]


class _Loader(Composer, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """libyaml's parser where it is there, and Python's composer: libyaml's dies of deep nesting."""

    def __init__(self, text: str) -> None:
        super(Composer, self).__init__(text)
        Composer.__init__(self)


def load_yaml(path: Path, model: type[Model], *, what: str) -> Model:
    """Read `path` and validate it as `model`.

    Args:
        what: the noun for messages, such as "recipe" or "constitution".

    Raises:
        ConfigError: the file is missing, empty, not YAML, or does not fit the model.
    """
    where = f"{what} {path}"
    return parse_model(read_text(path, where), model, where)


def parse_model(text: str, model: type[Model], where: str) -> Model:
    """The YAML mapping in `text` as `model`. Raises ConfigError as `load_yaml`."""
    value, lines = parse_yaml(text, where)
    if not isinstance(value, dict):
        problem = "is empty" if value is None else f"holds a {type(value).__name__}"
        keys = ", ".join(model.model_fields)
        raise ConfigError(f"{where} {problem}, but a mapping is needed; give it the keys {keys}")
    return validate(value, lines, model, where)


def read_text(path: Path, where: str) -> str:
    """The text of a UTF-8 file. Raises ConfigError, which begins with `where`."""
    problem = file_problem(path)
    if problem == "does not exist":
        raise ConfigError(f"{where} does not exist; check the path{_neighbors(path)}")
    if problem:
        raise ConfigError(f"{where} {problem}; name a UTF-8 file")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} cannot be read ({error}); it must be a UTF-8 file") from None


def parse_yaml(text: str, where: str) -> tuple[Any, dict[KeyPath, int]]:
    """The plain value and, for each key path, its line (from 1).

    Raises:
        ConfigError: not YAML, a repeated key, or beyond `MAX_DEPTH`, `MAX_ALIASED` or `MAX_DIGITS`.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        if node is None:
            return None, lines
        _Walk(lines, where).visit(node, ())
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = error.problem or "not YAML"
        raise ConfigError(
            f"{where}, line {line}: {problem}; fix the indentation or quoting there"
        ) from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        # Not only YAMLError: PyYAML lets 2026-02-31, an empty !!int and `!!bool x` escape.
        problem = str(error).partition("\n")[0]
        raise ConfigError(
            f"{where} is not YAML: {problem}; correct it, or quote the value"
        ) from None
    except RecursionError:
        raise ConfigError(f"{where} is nested too deeply; write it flat") from None
    finally:
        if loader is not None:
            loader.dispose()


def validate(
    value: dict[str, Any], lines: dict[KeyPath, int], model: type[Model], where: str
) -> Model:
    """The model, or one ConfigError that names the first fault and counts the others."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = _misspelt_first(error.errors(include_url=False), model)
        first = faults[0]
        path = _in_file(tuple(first["loc"]), lines)
        message = _describe(first, model, ".".join(map(str, path)))
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ConfigError(f"{where}{_line_of(path, lines)}: {message}{more}") from None


def _misspelt_first(faults: list[Any], model: type[BaseModel]) -> list[Any]:
    """The unknown keys, then the other faults without the missing keys that they were meant as."""
    unknown = [fault for fault in faults if fault["type"] == "extra_forbidden"]
    meant = {(*fault["loc"][:-1], _meant(fault, model)) for fault in unknown}
    missing = [f for f in faults if f["type"] == "missing" and tuple(f["loc"]) in meant]
    return unknown + [fault for fault in faults if fault not in unknown + missing]


def _meant(fault: Any, model: type[BaseModel]) -> str | None:
    """The known key that an unknown one was meant as."""
    key, known = str(fault["loc"][-1])[:80], _known_keys(model, fault["loc"][:-1])
    return next(
        iter(difflib.get_close_matches(RENAMED.get(key, key), known, n=1, cutoff=0.7)), None
    )


def _describe(fault: Any, model: type[BaseModel], name: str) -> str:
    context = fault.get("ctx", {})
    if fault["type"] == "extra_forbidden":
        known, meant = _known_keys(model, fault["loc"][:-1]), _meant(fault, model)
        hint = f"did you mean '{meant}'?" if meant else f"known keys: {', '.join(known)}"
        return f"'{name[:160]}' is not a known key; {hint}"
    if fault["type"] == "missing":
        return f"'{name}' is missing; add it"
    if fault["type"] == "union_tag_not_found":
        return f"'{name}.{context['discriminator'].strip(chr(39))}' is missing; add it"
    if fault["type"] == "union_tag_invalid":
        tag = context["discriminator"].strip("'")
        return (
            f"'{name}.{tag}' is '{context['tag']}', but one of {context['expected_tags']} is "
            "needed; choose one"
        )
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error" or not name:
        return f"{name}: {message}" if name else message
    shown = _SIGN_IN.sub("//***@", repr(fault.get("input")))[:80]
    value = "not usable" if {*fault["loc"]} & _PRIVATE else shown
    is_word = fault["type"] == "string_type" and isinstance(fault.get("input"), _NO_STRINGS)
    quote = "; quote it" if is_word else ""
    return f"'{name}' is {value}, but {message[0].lower()}{message[1:]}{quote}"


def _known_keys(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    current: Any = model
    for part in path:
        candidates = (
            _models_in(current.model_fields[part].annotation)
            if (
                isinstance(current, type)
                and issubclass(current, BaseModel)
                and part in current.model_fields
            )
            else []
        )
        tagged = [m for m in _models_in(current) if part in _tags(m)]
        if candidates:
            current = candidates[0] if len(candidates) == 1 else candidates
        elif tagged:
            current = tagged[0]
    return sorted({key for m in _models_in(current) for key in m.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, list):
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in getattr(annotation, "__args__", ()) for m in _models_in(arg)]


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    for name in ("type", "method", "name"):
        if name in model.model_fields:
            return getattr(model.model_fields[name].annotation, "__args__", ())
    return ()


def _in_file(path: KeyPath, lines: dict[KeyPath, int]) -> KeyPath:
    """The path without the tags that discriminated unions put into it, which no file has."""
    known: KeyPath = ()
    for part in path[:-1]:
        known = (*known, part) if (*known, part) in lines else known
    if known and known[-1] == path[-1] and (*known, path[-1]) not in lines:
        # The tag of a union is the name of a key: `check: {name: language, language: xx}`.
        return known
    return (*known, *path[-1:])


def _line_of(path: KeyPath, lines: dict[KeyPath, int]) -> str:
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return f", line {lines[path[:length]]}"
    return ""


@dataclass
class _Walk:
    """Notes the line of each key path, within bounds that no file of a person reaches."""

    lines: dict[KeyPath, int]
    where: str
    seen: set[int] = field(default_factory=set)
    aliased: int = 0

    def visit(self, node: yaml.Node, path: KeyPath) -> None:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self.aliased += id(node) in self.seen
        self.seen.add(id(node))
        if len(path) > MAX_DEPTH:
            raise self._error(
                line, f"nested over {MAX_DEPTH} levels deep, or contains itself through an alias"
            )
        if self.aliased > MAX_ALIASED:
            raise self._error(line, f"aliases repeat more than {MAX_ALIASED:,} values")
        if isinstance(node, yaml.MappingNode):
            self._visit_keys(node, path)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self.visit(value, (*path, index))
        elif node.tag == _INT and len(node.value) > MAX_DIGITS:
            raise self._error(line, f"a number of {len(node.value):,} digits; quote or shorten it")
        elif node.tag == _INT and _OLD_NUMBER.fullmatch(node.value):
            raise self._error(
                line, f"{node.value} means another number in YAML; write it in decimal, or quote it"
            )
        elif odd := NO_TEXT.search(node.value):
            raise self._error(line, f"a text holds the character {odd[0]!a}; remove it")

    def _visit_keys(self, node: yaml.MappingNode, path: KeyPath) -> None:
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(line, "a key must be one word; quote or rename it")
            if key.tag in _NO_TEXT_KEYS:
                raise self._error(
                    line, f"YAML does not read key '{key.value[:80]}' as text; quote it"
                )
            inner = (*path, key.value)
            if inner in self.lines:
                raise self._error(
                    line,
                    f"key '{key.value[:80]}' repeats the one in line {self.lines[inner]}; keep one",
                )
            self.lines[inner] = line
            self.visit(value, inner)

    def _error(self, line: int, problem: str) -> ConfigError:
        remedy = "" if ";" in problem else "; write the values out"
        return ConfigError(f"{self.where}, line {line}: {problem}{remedy}")


def _neighbors(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = sorted(p.name for p in path.parent.glob("*.yaml"))
    close = difflib.get_close_matches(path.name, names, n=1)
    return f" (did you mean {path.parent / close[0]}?)" if close else ""
