"""docs/constitutions.md: its example loads, its arithmetic and what its commands print are true."""

import json
import re
from pathlib import Path

import pytest

from pipeline.constitution import load_constitution
from tests.cli.commands import Rlaif

ROOT = Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "constitutions.md"


def _words() -> str:
    return " ".join(DOC.read_text(encoding="utf-8").split())


def test_documented_examples_load(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOC.read_text(encoding="utf-8"), flags=re.DOTALL)
    example = tmp_path / "example.yaml"
    constitutions = []
    for block in blocks:
        example.write_text(block, encoding="utf-8")
        constitutions.append(load_constitution(example))
    desk, pharmacy = constitutions
    assert desk.principles[0].weight == 2.0
    assert pharmacy.overrulers == {"complete": ["careful-medicine"]}


def test_documented_draw_shares_are_right() -> None:
    """2 / 21.5 = 0.0930; of 1,000 draws, sqrt(1000 x 0.093 x 0.907) = 9.2 is the deviation."""
    constitution = load_constitution(ROOT / "constitutions" / "open_assistant.yaml")
    weights = [principle.weight for principle in constitution.principles]
    assert sum(weights) == 21.5
    assert max(weights) == 2.0 and weights.count(2.0) == 1
    assert "9.3 % of the draws, about 93 of 1,000 labels, give or take 9" in _words()


def test_documented_repeat_share_is_right() -> None:
    """1 - (16 x 15 x 14 x 13) / 16^4 = 0.3335, the chance of a repeat in four rounds."""
    assert round(100 * (1 - 16 * 15 * 14 * 13 / 16**4)) == 33
    assert "33 % of chains" in _words()


DESK = """\
name: desk
principles:
  - id: honest
    critique_request: Name each statement of your last response that is not supported.
    revison_request: Rewrite the response so that it states only what is known.
    comparison_request: Compare the responses for honesty.
    weight: 2.0
  - id: honest
    critique_request: Name each part of your last response that is impolite.
    revision_request: Rewrite the response so that it is more polite.
    comparison_request: Which response is more polite? Which response is shorter?
"""


def printed(command: str) -> str:
    """What the page says that a command prints."""
    blocks = re.findall(r"^```\n\$ (.*?)\n(.*?)^```", DOC.read_text("utf-8"), flags=re.M | re.S)
    texts: list[str] = [text for line, text in blocks if line.startswith(f"{command} ")]
    assert len(texts) == 1, command
    return texts[0]


def test_documented_lint_is_what_is_printed(
    rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("desk.yaml").write_text(DESK, encoding="utf-8")
    assert rlaif("constitution", "lint", "desk.yaml").out == printed("rlaif constitution lint")


def test_documented_import_is_what_is_printed(
    rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pair = {"critic": "CritiqueRequest: Name what is rude.", "revision": "Make it polite."}
    other = {"critic": "CritiqueRequest: Name what is false.", "revision": "Make it true."}
    value = {"system_chat": [], "constitutions": [pair, other]}
    Path("swarm.json").write_text(json.dumps(value), encoding="utf-8")
    command = ("constitution", "import", "swarm.json", "--name", "swarm", "--out", "swarm.yaml")
    assert rlaif(*command).out == printed("rlaif constitution import swarm.json")


def test_documented_document_is_imported_as_printed(
    rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (document,) = re.findall(r"```markdown\n(.*?)```", DOC.read_text("utf-8"), flags=re.DOTALL)
    Path("stand.md").write_text(document, encoding="utf-8")
    command = ("constitution", "import", "stand.md", "--name", "stand", "--out", "stand.yaml")
    assert rlaif(*command).out == printed("rlaif constitution import stand.md")
    assert 'this principle: "Say what is true"?' in Path("stand.yaml").read_text("utf-8")
    lint = rlaif("constitution", "lint", "stand.yaml")
    assert lint.code == 0 and lint.out.count("[draft]") == 6


def test_documented_diff_is_what_is_printed(rlaif: Rlaif, tmp_path: Path) -> None:
    """The reworded requests are those of the page; `honest-01` is the last principle."""
    balanced, text = ROOT / "constitutions" / "balanced.yaml", printed("rlaif constitution diff")
    changed = balanced.read_text(encoding="utf-8")
    for old, new in re.findall(r"  - (.*)\n  \+ (.*)\n", text):
        assert old in changed, old
        changed = changed.replace(old, new)
    start = changed.index("  - id: honest-01")
    end = changed.find("\n  - id:", start)
    mine = tmp_path / "mine.yaml"
    mine.write_text(changed[:start] + (changed[end + 1 :] if end > 0 else ""), encoding="utf-8")
    assert rlaif("constitution", "diff", balanced, mine).out == text
