"""Mistakes at the command line and on the disk are one line, exit code 2."""

from pathlib import Path

import pytest

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


def test_one_damaged_run_does_not_hide_the_others(rlaif: Rlaif, tmp_path: Path) -> None:
    for name, text in (("bad", "[1]"), ("odd", '{"constitution": 3}'), ("good", "{}")):
        folder = tmp_path / "outputs" / "runs" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(text)
    ended = rlaif("runs")
    assert ended.code == 0 and "good" in ended.out and ended.out.count("damaged") == 2
