"""The folder in which a bad input is tried, and the edits that make it bad.

A folder has a good constitution, recipe, template, prompt set and label file, and the odd things
that a disk can hold. An edit is a path and an action: a text, or one of `ACTIONS` with its value.
"""

import gzip
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.paths import PROJECT_ROOT

Actions = Mapping[str, Any]

CONSTITUTION = """name: kind
principles:
  - id: kind-01
    critique_request: Name each unkind part of the last response.
    revision_request: Rewrite it so that it is kind.
    comparison_request: Which response is kinder?
"""
RECIPE: dict[str, Any] = {
    "name": "f",
    "seed": 0,
    "constitution": "c.yaml",
    "templates": {"judge": "judge.jinja"},
    "prompts": {"train": ["p.jsonl"], "heldout": []},
    "policy": {
        "type": "scripted",
        "script": "models.scripted:make_engine",
        "args": {"constitution": "c.yaml"},
    },
    "supervised": {"revise": {"rounds": 1}},
    "preference": {},
    "execution": {"shard_size": 4},
    "evaluation": {"enabled": False},
}
PROMPTS = "".join(json.dumps({"prompt": f"Question {i}, please?"}) + "\n" for i in range(6))
PAIR = {"prompt": "Hi?", "chosen": "Gladly: hello.", "rejected": "Figure it out yourself"}
SOURCES = "sources:\n  - type: pairs\n    name: people\n    path: l.jsonl\n"
MODEL_FILES = ("config.json", "model.safetensors", "chat_template.jinja", "tokenizer.json")


def prepare(folder: Path, world: str, run: Path) -> None:
    """Make the folder.

    Args:
        world: `plain`; `run` with a copy of `run` as outputs/runs/base; `model` with a copy of the
            pocket model as `m`, which the recipe's policy names.
    """
    folder.mkdir(parents=True)
    recipe = RECIPE
    if world == "model":
        (folder / "m").mkdir()
        for name in (*MODEL_FILES, "tokenizer_config.json"):
            shutil.copyfile(PROJECT_ROOT / "models/pocket" / name, folder / "m" / name)
        recipe = RECIPE | {"policy": {"type": "vllm", "model": "m"}}
    if world == "run":
        shutil.copytree(run, folder / "out/runs/base")
    template = (PROJECT_ROOT / "prompts/judge.jinja").read_text()
    texts = {
        "c.yaml": CONSTITUTION,
        "p.jsonl": PROMPTS,
        "l.jsonl": json.dumps(PAIR) + "\n",
        "s.yaml": SOURCES,
        "r.yaml": dump(recipe),
        "judge.jinja": template,
        "nothing.yaml": "",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "d.yaml").mkdir()
    os.mkfifo(folder / "pipe.yaml")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "dangling.yaml").symlink_to("gone")


def dump(recipe: Mapping[str, Any]) -> str:
    """A recipe as YAML."""
    return yaml.safe_dump(dict(recipe), sort_keys=False, width=10_000)


def set_value(recipe: Any, path: str, value: Any) -> Any:
    """A copy of nested mappings in which the key at the dotted path has this value."""
    head, _, rest = path.partition(".")
    inner = recipe.get(head) if isinstance(recipe, dict) else None
    return {**(recipe or {}), head: set_value(inner or {}, rest, value) if rest else value}


def edit(folder: Path, edits: Actions) -> None:
    """Apply the edits in their order."""
    for name, action in edits.items():
        path = folder / name
        verb, value = next(iter(action.items())) if isinstance(action, dict) else ("utf-8", action)
        path.parent.mkdir(parents=True, exist_ok=True)
        if verb in ACTIONS:
            ACTIONS[verb](path, value)
        else:
            path.write_bytes(encoded(value, verb))


def encoded(text: str, encoding: str) -> bytes:
    """The bytes of a text; half surrogate pairs pass where the encoding is UTF-8."""
    if encoding == "gzip":
        return gzip.compress(text.encode())
    return text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "strict")


def _gone(path: Path, _: Any = None) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _swap(path: Path, words: tuple[str, str]) -> None:
    text = path.read_text()
    if words[0] not in text:
        raise ValueError(f"{path.name} has no {words[0]!r} to swap")
    path.write_bytes(encoded(text.replace(*words), "utf-8"))


def _flip(path: Path, share: float) -> None:
    """One bit, in a letter or digit where the file is a text."""
    data = bytearray(path.read_bytes())
    at = int(len(data) * share)
    while path.suffix != ".parquet" and not chr(data[at]).isalnum():
        at += 1
    data[at] ^= 1
    path.write_bytes(bytes(data))


def _json(path: Path, changes: Mapping[str, Any]) -> None:
    value = json.loads(path.read_text())
    for name, new in changes.items():
        value = set_value(value, name, new)
    path.write_text(json.dumps(value))


def _recipe(path: Path, changes: Mapping[str, Any]) -> None:
    value = yaml.safe_load(path.read_text())
    for name, new in changes.items():
        value = set_value(value, name, new)
    path.write_text(dump(value))


def _folder(path: Path, _: Any) -> None:
    _gone(path)
    path.mkdir()


def _link(path: Path, target: str) -> None:
    _gone(path)
    path.symlink_to(target)


ACTIONS: Mapping[str, Callable[[Path, Any], object]] = {
    "gone": _gone,
    "folder": _folder,
    "link": _link,
    "swap": _swap,
    "flip": _flip,
    "json": _json,
    "recipe": _recipe,
    "cut": lambda path, share: os.truncate(path, int(path.stat().st_size * share)),
    "append": lambda path, text: path.write_bytes(path.read_bytes() + encoded(text, "utf-8")),
    "mode": lambda path, mode: os.chmod(path, int(mode, 8)),
    "hash": lambda path, shard: _json(path, {"sha256": _sha256(path.parent / shard)}),
}
"""Actions of edits. Any other word is an encoding, for a file with that text: latin-1, utf-16,
gzip."""


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()
