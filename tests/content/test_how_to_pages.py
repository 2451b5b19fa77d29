"""The examples of the how-to pages load: principles as a constitution, the rest as a recipe."""

from pathlib import Path

import pytest
import yaml

from pipeline.config.paths import PROJECT_ROOT
from pipeline.config.recipe import load_config
from pipeline.config.yaml_file import load_yaml
from pipeline.constitution import Constitution
from pipeline.constitution.lint import lint_constitution
from tests.test_readme import blocks

PAGES = ("brand_voice", "code_style", "safety")
EXAMPLES = [
    (page, number, block)
    for page in PAGES
    for number, block in enumerate(
        blocks((PROJECT_ROOT / f"docs/{page}.md").read_text(encoding="utf-8"), "yaml")
    )
]


@pytest.mark.parametrize(
    ("page", "number", "block"), EXAMPLES, ids=[f"{page}-{number}" for page, number, _ in EXAMPLES]
)
def test_example_loads(tmp_path: Path, page: str, number: int, block: str) -> None:
    path = tmp_path / "example.yaml"
    if block.startswith("principles:"):
        path.write_text(f"name: {page.replace('_', '-')}\n{block}")
        assert load_yaml(path, Constitution, what="constitution").principles
        assert not lint_constitution(path).findings
        return
    recipe = yaml.safe_load((PROJECT_ROOT / "flows/configs/one_gpu.yaml").read_text())
    for name, section in yaml.safe_load(block).items():
        recipe[name] = {**recipe[name], **section}
    path.write_text(yaml.safe_dump(recipe))
    assert load_config(path)
