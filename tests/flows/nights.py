"""Recipes and prompts of nights, on the scripted engine."""

from pathlib import Path

import yaml

from pipeline.config.paths import PROJECT_ROOT
from pipeline.ids import canonical_json

SMOKE = PROJECT_ROOT / "flows/configs/smoke.yaml"


def write_nights(folder: Path) -> str:
    """The smoke recipe with a prompt set of its own."""
    recipe = yaml.safe_load(SMOKE.read_text())
    recipe |= {"name": "nights", "prompts": {"train": [str(folder / "prompts.jsonl")]}}
    path = folder / "nights.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return str(path)


def write_prompts(folder: Path, count: int) -> None:
    """The first `count` of an endless list."""
    lines = [canonical_json({"prompt": f"question {i}?"}) for i in range(count)]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
