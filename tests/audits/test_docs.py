"""docs/audits.md says what is true: its recipe loads, its counts are those of the files."""

import re

import yaml

from pipeline.audits.canary_set import load_canaries
from pipeline.audits.canary_stage import KINDS
from pipeline.audits.label_figures import FIGURES, can_fail
from pipeline.config import load_config
from pipeline.config.audits import LabelAuditConfig
from pipeline.config.paths import PROJECT_ROOT

PAGE = (PROJECT_ROOT / "docs/audits.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())
"""The page without its line breaks."""


def test_recipe_example_loads() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    audit = LabelAuditConfig.model_validate(yaml.safe_load(example)["preference"]["audit"])
    assert audit.enabled and audit.max_identical is None


def test_counts_are_true() -> None:
    folder = PROJECT_ROOT / "prompts/canaries"
    assert f"`general.yaml` has {len(load_canaries(folder / 'general.yaml').canaries)} " in WORDS
    assert f"`pocket.yaml` has {len(load_canaries(folder / 'pocket.yaml').canaries)}, " in WORDS
    groups = yaml.safe_load((PROJECT_ROOT / "tests/injections/injections.yaml").read_text())
    assert f"the {sum(map(len, groups.values()))} texts" in WORDS


def test_numbers_of_prompts_are_true() -> None:
    assert (
        "`slot_share` at most 0.8 needs 16 prompts, `order_disagreement` at most 0.5 needs 4"
        in WORDS
    )
    assert [can_fail((None, 0.8), m) for m in (15, 16)] == [False, True]
    assert [can_fail((None, 0.5), m) for m in (3, 4)] == [False, True]
    config = LabelAuditConfig()
    assert config.canaries_in_shard(1) == 27 and config.min_prompts == 3


def test_every_kind_and_figure_is_told() -> None:
    for name in (*KINDS, *FIGURES):
        assert f"| `{name}` |" in PAGE, name
    for name in LabelAuditConfig.model_fields:
        if name.startswith(("min_", "max_")):
            assert f"`{name}`" in PAGE, name


def test_shipped_recipes_audit_their_labels() -> None:
    for path in (PROJECT_ROOT / "flows/configs").glob("*.yaml"):
        assert load_config(path).preference.audit.enabled, path.name
