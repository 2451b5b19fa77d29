"""The command line as a test calls it: in this process, with its exit code and what it printed."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline import cli


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Rlaif = Callable[..., Ended]


@pytest.fixture
def rlaif(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Rlaif:
    """Runs the command in this process, with runs and state below the test's folder."""
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("RLAIF_STATE", str(tmp_path / "state"))

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["rlaif", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0, *capfd.readouterr())

    return run
