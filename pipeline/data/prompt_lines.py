"""One line of a prompt set: JSON in, a conversation out, or a complaint that names file and line.

    {"prompt": "How do I fix a tap?"}
    {"messages": [{"role": "user", "content": "Hi"}, ...], "tags": ["multi-turn"]}

A conversation may start with a system turn, then user and assistant alternate, and it ends with a
user turn. Unknown keys are refused: a misspelled `tags` would otherwise be lost silently.
"""

import difflib
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.paths import PROJECT_ROOT, file_problem
from pipeline.errors import DataError
from pipeline.types import Message, Messages, is_blank, user

KEYS = ("prompt", "messages", "tags")
ROLES = ("system", "user", "assistant")


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers from 1; `.gz` is unpacked.

    Raises:
        DataError: the file is missing, a folder, or not gzip although it is named so.
    """
    problem = file_problem(path)
    if problem and problem != "does not exist":
        raise DataError(f"prompt file {path} {problem}; give a JSON Lines file")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except FileNotFoundError:
        raise DataError(
            f"prompt file {path} does not exist; check the path in the recipe"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"prompt file {path} cannot be read ({error}); give a JSON Lines file, "
            "plain or with gzip and the ending .gz"
        ) from None


def parse_line(line: bytes, where: str) -> tuple[Messages, tuple[str, ...]]:
    """The conversation and the tags of one line.

    Raises:
        DataError: anything but one object as described above; starts with `where`.
    """
    value = _json_object(line, where)
    for key in value:
        if key not in KEYS:
            close = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(KEYS)}"
            raise DataError(f"{where}: '{key}' is not a known key; {hint}")
    if ("prompt" in value) == ("messages" in value):
        keys = "both 'prompt' and 'messages'" if "prompt" in value else "no prompt"
        raise DataError(f"{where}: has {keys}, but one of them is needed; keep one")
    messages = (
        (user(_text(value["prompt"], where, "prompt")),)
        if "prompt" in value
        else _conversation(value["messages"], where)
    )
    tags = value.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise DataError(f'{where}: \'tags\' must be a list of strings; write ["one", "two"]')
    return messages, tuple(_unicode(tag, where, "a tag") for tag in tags)


def display_path(path: Path) -> str:
    """The path below the project if it is there, so that rows do not name a machine's folders."""
    resolved = path.resolve()
    if resolved.is_relative_to(PROJECT_ROOT):
        return resolved.relative_to(PROJECT_ROOT).as_posix()
    return str(path)


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8").rstrip(), object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: byte {error.start + 1} is not UTF-8; save the file as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: broken JSON ({error.msg}, column {error.colno}); "
            "write one whole object on each line"
        ) from None
    except RecursionError:
        raise DataError(f"{where}: JSON nested too deeply; write one flat object") from None
    except ValueError as error:
        # A repeated key, or a number of more digits than Python converts.
        remedy = "" if ";" in str(error) else "; quote the number"
        raise DataError(f"{where}: {str(error)[:200]}{remedy}") from None
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: found a JSON {type(value).__name__}, but an object is needed; "
            'write {"prompt": "..."}'
        )
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if repeated := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise ValueError(f"key {repeated[0][:80]!r} repeats; keep one")
    return dict(pairs)


def _conversation(value: Any, where: str) -> Messages:
    if not isinstance(value, list) or not value:
        raise DataError(
            f"{where}: 'messages' must be a list with at least one turn; add a user turn"
        )
    messages = tuple(_turn(turn, where, number) for number, turn in enumerate(value, start=1))
    _check_roles([message.role for message in messages], where)
    return messages


def _turn(turn: Any, where: str, number: int) -> Message:
    if not isinstance(turn, dict) or set(turn) != {"role", "content"}:
        raise DataError(
            f"{where}: turn {number} of 'messages' must be an object with exactly role and content"
        )
    if turn["role"] not in ROLES:
        raise DataError(
            f"{where}: turn {number} has the role {turn['role']!r}; use {', '.join(ROLES)}"
        )
    return Message(turn["role"], _text(turn["content"], where, f"content of turn {number}"))


def _check_roles(roles: Sequence[str], where: str) -> None:
    start = 1 if roles[0] == "system" else 0
    for index, role in enumerate(roles[start:]):
        expected = "assistant" if index % 2 else "user"
        if role != expected:
            raise DataError(
                f"{where}: turn {start + index + 1} has the role {role}, but {expected} is needed "
                "there; after an optional system turn, user and assistant alternate"
            )
    if roles[-1] != "user":
        raise DataError(
            f"{where}: the last turn has the role {roles[-1]}, but a user turn is needed for the "
            "model to answer; remove the last turn or add one"
        )


def _text(value: Any, where: str, name: str) -> str:
    if not isinstance(value, str):
        found = "is null" if value is None else f"has the type {type(value).__name__}"
        raise DataError(
            f"{where}: {name} {found}, but text is needed; make it a text, or leave this one out"
        )
    if is_blank(_unicode(value, where, name)):
        raise DataError(f"{where}: {name} is empty; write something or remove the line")
    return value


def _unicode(value: str, where: str, name: str) -> str:
    if "\0" in value:
        raise DataError(f"{where}: {name} holds the character NUL; remove it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: {name} holds half of a surrogate pair; write the character itself"
        ) from None
    return value
