"""The tables of bad inputs, one YAML file per family, as cases.

A file is a list of groups. A group has one command or several under `run`, what all its cases
share (`with` for edits, and the fields in `SHARED`), and the inputs in one of these forms:

    file: c.yaml, texts: [...]            the whole text of the file
    file: c.yaml, swaps: {old: [new]}     the good file with one passage replaced
    file: r.yaml, values: {path: [...]}   the good recipe with one value replaced
    edits: {name: {path: action}}         any change of the folder (see world.py)
    commands: [...]                       the command itself
    variables: [{NAME: value}]            its environment
    records: {type: {column: value}}      label files: each column missing or odd, and `junk`

In every text, `⟦x×5000⟧` repeats x and `@SECRET` is the planted key.
"""

import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.borders.trial import SECRET, Case

FOLDER = Path(__file__).parent / "bad_inputs"
FAMILIES = (
    "constitution",
    "recipe",
    "template",
    "prompts",
    "labels",
    "model_folder",
    "run_folder",
    "arguments",
    "environment",
)
EVERY = 6
"""The quick version takes one case of this many."""
SHARED = ("end", "world", "environment", "limits", "slow", "writes", "known")


@cache
def cases(family: str) -> tuple[Case, ...]:
    """All cases of a family, in the order of its table."""
    groups = expand(yaml.safe_load((FOLDER / f"{family}.yaml").read_text(encoding="utf-8")))
    made: list[Case] = []
    for group in groups:
        shared = {key: group[key] for key in SHARED if key in group}
        runs = group.get("run", [])
        for name, command, edits, more in _inputs(group):
            for argv in [command] if command else [runs] if isinstance(runs, str) else runs:
                words = argv if isinstance(argv, list) else shlex.split(argv)
                title = f"{' '.join(words)[:40]!r}" + (f": {name}" if name else "")
                made.append(
                    Case(
                        family,
                        title,
                        tuple(words),
                        group.get("with", {}) | edits,
                        **(shared | more),
                    )
                )
    return tuple(made)


def quick_cases(family: str) -> tuple[Case, ...]:
    """One case of six, without those that take long or are known to be accepted."""
    return tuple(case for case in cases(family) if not (case.slow or case.known))[::EVERY]


def expand(value: Any) -> Any:
    """The value with repetitions and the key filled in, in keys and texts."""
    if isinstance(value, dict):
        return {expand(key): expand(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [expand(inner) for inner in value]
    if isinstance(value, str):
        text = re.sub(r"(?s)⟦(.*?)×(\d+)⟧", lambda m: m[1] * int(m[2]), value)
        return text.replace("@SECRET", SECRET)
    return value


def _inputs(group: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any], dict[str, Any]]]:
    """Name, command (if it is the input), edits and further fields of each input."""
    file = group.get("file", "")
    for text in group.get("texts", []):
        yield shown(text), None, {file: text}, {}
    for old, news in group.get("swaps", {}).items():
        for new in news:
            yield shown(new), None, {file: {"swap": (old, new)}}, {}
    for path, values in group.get("values", {}).items():
        for value in values:
            yield f"{path} = {shown(value)}", None, {file: {"recipe": {path: value}}}, {}
    for name, edits in group.get("edits", {}).items():
        yield name, None, edits or {}, {}
    for command in group.get("commands", []):
        yield "", command, {}, {}
    for variables in group.get("variables", []):
        yield shown(variables), None, {}, {"environment": variables}
    for kind, record in group.get("records", {}).items():
        source = {"s.yaml": {"swap": ("type: pairs", f"type: {kind}")}}
        for text in [*group.get("junk", []), *odd_records(record)]:
            yield f"{kind} {shown(text)}", None, source | {file: text}, {}


def odd_records(record: dict[str, Any]) -> Iterator[str]:
    """The record without each of its columns, and with each of them odd."""
    for key in record:
        yield json.dumps({k: v for k, v in record.items() if k != key}) + "\n"
        for odd in (7, {"a": 1}):
            yield json.dumps({**record, key: odd}) + "\n"


def shown(value: Any) -> str:
    """A value for the name of a case."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 70 else f"{text[:50]}... ({len(text)})"
