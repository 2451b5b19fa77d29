"""docs/constitutions.md: its example loads, and its arithmetic is that of the shipped file."""

import re
from pathlib import Path

from pipeline.constitution import load_constitution

ROOT = Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "constitutions.md"


def _words() -> str:
    return " ".join(DOC.read_text(encoding="utf-8").split())


def test_documented_example_loads(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOC.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 1
    example = tmp_path / "example.yaml"
    example.write_text(blocks[0], encoding="utf-8")
    assert load_constitution(example).principles[0].weight == 2.0


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
