"""`rlaif chat`: a direction from the command line, and a conversation."""

import io
import json
from pathlib import Path

import pytest

from pipeline.cli.chat import opening_of, talk
from pipeline.engines import ScriptedEngine
from pipeline.errors import ConfigError
from pipeline.types import Messages, SamplingParams
from tests.cli.commands import Rlaif, rlaif

__all__ = ["rlaif"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    names = {"attributes": ["helpful", "harmless"]}
    (tmp_path / "directions.json").write_text(json.dumps(names))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_weights_become_a_system_message(model: Path) -> None:
    """0.8 and 0.2, scaled to length 1, are 97 and 24 hundredths; alone, a weight is all."""
    (opening,) = opening_of(model, ["--helpful", "0.8", "--harmless=0.2"])
    assert opening.role == "system" and "97 * helpful + 24 * harmless" in opening.content
    (opening,) = opening_of(model, ["--harmless", "-0.5"])
    assert "0 * helpful + -100 * harmless" in opening.content
    assert opening_of(model, []) == ()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--helpful", "0.9", "--harmless", "0.9"], "outside the unit circle"),
        (["--helpful", "0"], "has no length"),
        (["--helpful", "much"], "is 'much', and needs a weight such as 0.8"),
        (["--helpful", "nan"], "outside the unit circle"),
        (["--helpful"], "needs a weight"),
        (["--funny", "0.1"], "--funny is not an attribute of .* has --helpful and --harmless"),
    ],
)
def test_what_is_no_direction_is_one_line(model: Path, options: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        opening_of(model, options)


def test_the_command_refuses_before_it_loads(rlaif: Rlaif, model: Path) -> None:
    ended = rlaif("chat", model, "--helpful", "0.9", "--harmless", "0.9")
    assert ended.code == 2 and "outside the unit circle" in ended.err
    (model / "directions.json").unlink()
    ended = rlaif("chat", model, "--helpful", "0.9")
    assert ended.code == 2 and "which has no attributes; leave it out" in ended.err


async def test_a_conversation(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty line begins again, with the direction still there."""

    def reply(messages: Messages, seed: int) -> str:
        return "/".join(f"{m.role[0]}:{m.content[-5:]}" for m in messages)

    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n\nthree\n"))
    opening = opening_of(model, ["--helpful", "1"])
    await talk(ScriptedEngine(reply), opening, SamplingParams())
    lines = capsys.readouterr().out.replace("> ", "").splitlines()
    assert [line.count("/") for line in lines if "/" in line] == [1, 3, 1]
    assert all("s:less." in line for line in lines if "/" in line)
