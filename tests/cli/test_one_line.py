"""Mistakes at the command line and on the disk are one line, exit code 2."""

from pathlib import Path

import pytest

from pipeline.config.paths import PROJECT_ROOT
from tests.cli.commands import Rlaif, rlaif

__all__ = ["rlaif"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["verify", "--nope"],
        ["frobnicate"],
        ["constitution", "lint"],
        ["labels", "mingle"],
        ["export", "x", "--out", "y.jsonl", "--format", "xml"],
        ["check", "\x1b[31m.jinja"],
        ["check", "p" * 5_000 + ".yaml"],
        ["check", "a\0b.yaml"],
        ["verify", "r" * 5_000],
        ["report", "a\0b"],
        ["trace", "0123456789abcdef", "--run", "r" * 300],
    ],
)
def test_mistake_is_one_line(arguments: list[str], rlaif: Rlaif) -> None:
    ended = rlaif(*arguments)
    assert ended.code == 2
    assert ended.err.startswith("rlaif: ") and len(ended.err.splitlines()) == 1
    assert len(ended.err) < 700


def test_nothing_controls_the_terminal(rlaif: Rlaif, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('["Select the response that is \\u001b[2J kind \\u202e"]')
    run = tmp_path / "outputs/runs/a"
    run.mkdir(parents=True)
    (run / "run.json").write_text('{"constitution": {"name": "[b]\\u001b]0;x\\u0007"}}')
    listed = rlaif("runs").out
    assert "[b]\\x1b]0;x\\x07" in listed and "\x1b" not in listed
    file = tmp_path / "c.yaml"
    rlaif("constitution", "import", tmp_path / "x.json", "--name", "n", "--out", file)
    for command in (["lint", file], ["diff", file, file]):
        ended = rlaif("constitution", *command)
        assert not {"\x1b", "\u202e"} & set(ended.out + ended.err)


def test_every_line_is_made_printable_in_one_place() -> None:
    callers = {
        p.name for p in (PROJECT_ROOT / "pipeline").rglob("*.py") if ".echo(" in p.read_text()
    }
    assert callers == {"terminal.py"}


def test_one_damaged_run_does_not_hide_the_others(rlaif: Rlaif, tmp_path: Path) -> None:
    for name, text in (("bad", "[1]"), ("odd", '{"constitution": 3}'), ("good", "{}")):
        folder = tmp_path / "outputs" / "runs" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(text)
    ended = rlaif("runs")
    assert ended.code == 0 and "good" in ended.out and ended.out.count("damaged") == 2
