"""`--set preference.train.beta=0.05`: a recipe's text with some of its values replaced.

In:  the text of a recipe, and `key.path=value` strings whose values are YAML
Out: the changed text, with the comments and the order of the first
"""

import io
from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML

from pipeline.config.yaml_file import parse_yaml
from pipeline.errors import ConfigError


def override(text: str, overrides: Sequence[str], where: str) -> str:
    """The text with each override applied in turn; sections that are missing or null are added.

    Args:
        text: a YAML mapping.
        overrides: each `key.path=value`; a number in the path is an index into a list.
        where: what the text is, for messages.

    Raises:
        ConfigError: the text is no mapping, an override has no `=`, its value is not YAML, or its
            path leads nowhere.
    """
    plain, _ = parse_yaml(text, where)
    if not isinstance(plain, dict):
        raise ConfigError(f"{where} holds no mapping, so --set has nothing to replace")
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    document = yaml.load(text)
    for each in overrides:
        path, found, value = each.partition("=")
        if not found or not all(path.split(".")):
            raise ConfigError(
                f"--set {each[:120]!r} is not KEY=VALUE; write it as preference.train.beta=0.05"
            )
        parsed, _ = parse_yaml(value, f"--set {path[:120]}")
        _replace(document, path, parsed, where)
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _replace(document: Any, path: str, value: Any, where: str) -> None:
    *parents, last = path.split(".")
    place, walked = document, ""
    for part in parents:
        key = _key_in(place, part, walked, where)
        if isinstance(place, dict) and place.get(key) is None:
            place[key] = {}
        place, walked = place[key], f"{walked}{part}."
    place[_key_in(place, last, walked, where)] = value


def _key_in(place: Any, part: str, walked: str, where: str) -> str | int:
    """The key or index that a part of a path means at this place."""
    if isinstance(place, dict):
        return part
    if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
        return int(part)
    found = f"a list of {len(place)}" if isinstance(place, list) else repr(place)[:80]
    raise ConfigError(
        f"--set {(walked + part)[:120]}: '{walked[:-1]}' in {where} is {found}, which has no "
        f"'{part[:80]}'; correct the path"
    )
