"""Every mistake in a YAML file gets one line with the file, the line and the remedy."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from pipeline.config import RunConfig
from pipeline.config.engines import OpenAIConfig
from pipeline.config.paths import resolve_path
from pipeline.config.yaml_file import load_yaml, parse_yaml
from pipeline.errors import ConfigError


class Cat(BaseModel):
    """One of two kinds."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    """The other kind."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["dog"]
    name: str


class Home(BaseModel):
    """A file."""

    model_config = ConfigDict(extra="forbid")
    street: str
    pet: Annotated[Cat | Dog, Field(discriminator="type")] | None = None
    numbers: list[int] = []


def load(tmp_path: Path, text: str) -> Home:
    path = tmp_path / "home.yaml"
    path.write_text(text)
    return load_yaml(path, Home, what="home")


def test_good_file_loads(tmp_path: Path) -> None:
    home = load(tmp_path, "street: Main\npet: {type: cat, lives: 7}\nnumbers: [1, 2]\n")
    assert isinstance(home.pet, Cat) and home.pet.lives == 7


@pytest.mark.parametrize(
    "text, message",
    [
        ("street: x\nstreat: y\n", "line 2: 'streat' is not a known key; did you mean 'street'"),
        (
            "street: x\nzzz: y\n",
            "line 2: 'zzz' is not a known key; known keys: numbers, pet, street",
        ),
        ("street: x\nstreet: y\n", "line 2: key 'street' repeats the one in line 1; keep one"),
        ("numbers: []\n", "'street' is missing; add it"),
        ("street: x\npet:\n  type: cat\n  livs: 7\n", "line 4: 'pet.livs' .* did you mean 'lives'"),
        ("street: x\npet:\n  type: dog\n", "line 2: 'pet.name' is missing; add it"),
        (
            "street: x\npet:\n  type: cow\n",
            "'pet.type' is 'cow', but one of 'cat', 'dog' is needed",
        ),
        ("street: x\npet:\n  lives: 7\n", "line 2: 'pet.type' is missing; add it"),
        (
            "street: x\nnumbers:\n  - 1\n  - two\n",
            "line 4: 'numbers.1' is 'two', but input should be",
        ),
        ("street: 5\nnumbers: [x]\n", r"\(and 1 more\)"),
        ("stret: x\n", "line 1: 'stret' is not a known key; did you mean 'street'\\?$"),
        ("numbers: [x]\nstret: y\n", r"line 2: 'stret' .* 'street'\? \(and 1 more\)$"),
        ("street: no\n", r"line 1: 'street' is False, but input should be .* string; quote it$"),
        ("street: 2026-01-02\n", r"is datetime\.date\(2026, 1, 2\), but .*; quote it$"),
        ("street: x\nyes: 2\n", "line 2: YAML does not read key 'yes' as text; quote it$"),
        ("street: x\npet: {1: 2}\n", "line 2: YAML does not read key '1' as text; quote it$"),
        ("street: x\nnumbers: [017]\n", "line 2: 017 means another number in YAML"),
        ("street: x\nnumbers: [12:34]\n", "line 2: 12:34 means another number"),
        ('street: "x\\x1b[2J"\n', "line 1: a text holds the character"),
        ('street: x\n"pet\\0": y\n', "known key|holds the character"),
        ('street: "\\udc80"\n', "invalid Unicode character"),
        ("street: [x\n", "line 2: .*; fix the indentation or quoting there"),
        ("street: x: y\n", "line 1: mapping values are not allowed"),
        ("street: !!int\n", "is not YAML: string index out of range; correct it, or quote"),
        ("street: !!bool x\n", "is not YAML: 'x'; correct it, or quote"),
        ("street: !!timestamp x\n", "is not YAML: .*; correct it, or quote"),
        ("street: 2026-02-31\n", "is not YAML: day is out of range.*; correct it, or quote"),
        ("? [a]\n: x\n", "line 1: a key must be one word"),
        ("street: &a [*a]\n", "contains itself through an alias"),
        ("street: !!python/name:os.system x\n", "could not determine a constructor"),
        (
            "- street\n",
            "holds a list, but a mapping is needed; give it the keys street, pet, numbers",
        ),
        ("# nothing\n", "is empty, but a mapping is needed"),
    ],
)
def test_mistake_gets_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"home {tmp_path / 'home.yaml'}")
    assert "\n" not in str(caught.value)


def test_missing_file_suggests_a_neighbor(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("street: x\n")
    with pytest.raises(ConfigError, match=r"does not exist; .*did you mean .*demo\.yaml"):
        load_yaml(tmp_path / "deno.yaml", Home, what="home")


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "home.yaml"
    path.write_bytes("street: Stra\u00dfe".encode("latin-1"))
    with pytest.raises(ConfigError, match="must be a UTF-8 file"):
        load_yaml(path, Home, what="home")


def test_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder, but a file is needed"):
        load_yaml(tmp_path, Home, what="home")


def test_lines_are_counted_from_one() -> None:
    value, lines = parse_yaml("a: 1\nb:\n  - c\n  - d: 2\n", "x")
    assert value == {"a": 1, "b": ["c", {"d": 2}]}
    assert lines[("a",)] == 1 and lines[("b", 1, "d")] == 4


def _bomb(width: int, levels: int) -> str:
    lines = ["l0: &l0 [" + "x, " * width + "]"]
    for level in range(1, levels):
        lines.append(
            f"l{level}: &l{level} {{"
            + ", ".join(f"k{n}: *l{level - 1}" for n in range(width))
            + "}"
        )
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text, problem",
    [
        (_bomb(7, 12), "aliases repeat more than"),
        ("street: &s x\nnumbers: [" + "*s, " * 50_000 + "]", "aliases repeat more than"),
        ("street: " + "[" * 100_000, "nested too deeply"),
        ("street: " + "{a: " * 2_000 + "}" * 2_000, "nested too deeply"),
        ("street: &s {pet: [*s]}", "contains itself"),
        ("street: " + "[" * 100 + "]" * 100, "nested over 64 levels"),
        ("numbers: [-" + "8" * 6_000 + "]", "a number of 6,001 digits"),
        ("numbers: [0b" + "1" * 20_000 + "]", "a number of 20,002 digits"),
    ],
)
def test_bounds_hold_at_once(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        load(tmp_path, text)
    assert len(str(refused.value)) < 400


def test_pipe_is_refused_without_opening_it(tmp_path: Path) -> None:
    """Opening a pipe that has no writer would wait forever."""
    os.mkfifo(tmp_path / "home.yaml")
    with pytest.raises(ConfigError, match="is not a regular file"):
        load_yaml(tmp_path / "home.yaml", Home, what="home")


@pytest.mark.parametrize("name", ["a\0b.yaml", "y" * 300 + ".yaml", "round.yaml"])
def test_what_cannot_be_a_path_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "round.yaml").symlink_to("round.yaml")
    with pytest.raises(ConfigError, match="cannot be"):
        load_yaml(resolve_path(tmp_path / name), Home, what="home")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates()
KEYS = st.text(max_size=4) | st.sampled_from(["name", "prompts", "policy", "type", "preference", 1])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
PIECES = st.sampled_from(
    [
        *":-[]{}&*!|>#%@`,?~ '\"\t\n",
        ": ",
        "- ",
        "\n  ",
        "a: ",
        "&x ",
        "*x",
        "<<: ",
        "!!int ",
        "---\n",
    ]
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("yaml") / "r.yaml"


def assert_loads_or_is_named(path: Path, text: str) -> None:
    """A recipe with this text loads, or the mistake is one line that begins with the file."""
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_yaml(path, RunConfig, what="recipe")
    except ConfigError as error:
        assert str(error).startswith(f"recipe {path}") and "\n" not in str(error)


@given(text=st.text() | st.lists(PIECES, max_size=12).map("".join))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_text_loads_or_is_named(text: str, recipe: Path) -> None:
    assert_loads_or_is_named(recipe, text)


@given(value=VALUES)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_value_loads_or_is_named(value: Any, recipe: Path) -> None:
    assert_loads_or_is_named(recipe, yaml.safe_dump(value, allow_unicode=True))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("base_url", "https://me:S3CRET@h.example/v1"),
        ("base_url", "https://S3CRET@h.example/v1"),
        ("base_url", "https://h.example/v1?token=S3CRET"),
        ("base_url", "https://h.example/v1#S3CRET"),
        ("base_url", "https://"),
        ("base_url", "http:///v1"),
        ("base_url", "http://[::1/v1"),
        ("base_url", "http://h:70000/v1"),
        ("base_url", "http://h:port/v1"),
        ("base_url", "http://h:0/v1"),
        ("base_url", "http://h /v1"),
        ("base_url", "me:S3CRET@h.example/v1"),
        ("api_key_env", "sk-S3CRET"),
        ("api_key_env", ["S3CRET"]),
    ],
)
def test_no_key_in_a_recipe_and_none_in_messages(tmp_path: Path, key: str, value: object) -> None:
    engine = {"type": "openai", "base_url": "http://h:8000/v1", "model": "m", key: value}
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(engine))
    with pytest.raises(ConfigError, match=f"line .*{key}") as caught:
        load_yaml(path, OpenAIConfig, what="engine")
    assert "S3CRET" not in str(caught.value)
