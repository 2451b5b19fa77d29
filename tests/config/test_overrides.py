"""`--set`: values of a recipe that are replaced on the command line."""

from pathlib import Path

import pytest

from pipeline.config.overrides import override
from pipeline.config.paths import PROJECT_ROOT
from pipeline.config.recipe import read_recipe
from pipeline.errors import ConfigError
from pipeline.run.start import check_recipe, start_run

TEXT = """\
# A recipe.
name: 'night'   # quoted
preference:
  # judged pairs
  sample: {num_samples: 2, temperature: 1}
  train: null
panel:
- {model: a}
- {model: b}
"""
SMOKE = PROJECT_ROOT / "flows/configs/smoke.yaml"


def test_values_change_and_nothing_else() -> None:
    changed = override(
        TEXT,
        [
            "preference.sample.num_samples=4",
            "preference.train.beta=0.05",
            "panel.1.model=c",
            "prompts.train=[x.jsonl, y.jsonl]",
            "name=a=b",
        ],
        "recipe r.yaml",
    )
    assert changed == (
        "# A recipe.\n"
        "name: 'a=b'     # quoted\n"
        "preference:\n"
        "  # judged pairs\n"
        "  sample: {num_samples: 4, temperature: 1}\n"
        "  train:\n"
        "    beta: 0.05\n"
        "panel:\n"
        "- {model: a}\n"
        "- {model: c}\n"
        "prompts:\n"
        "  train:\n"
        "  - x.jsonl\n"
        "  - y.jsonl\n"
    )


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        (TEXT, "preference.train.beta", "is not KEY=VALUE"),
        (TEXT, "=3", "is not KEY=VALUE"),
        (TEXT, "preference..beta=3", "is not KEY=VALUE"),
        (TEXT, "preference.train=[1", r"--set preference\.train, line \d"),
        (TEXT, "preference.sample={a: 1, a: 2}", "repeats the one"),
        (TEXT, "name.first=3", r"'name' in recipe r\.yaml is 'night', which has no 'first'"),
        (TEXT, "panel.2.model=c", "'panel' in .* is a list of 2, which has no '2'"),
        (TEXT, "panel.-1.model=c", "which has no '-1'"),
        ("- a\n- b\n", "name=b", "holds no mapping"),
        ("a: 1\na: 2\n", "b=1", r"line 2: key 'a' repeats"),
    ],
)
def test_mistakes_are_one_line(text: str, given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        override(text, [given], "recipe r.yaml")
    assert "\n" not in str(caught.value)


def test_a_misspelt_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'preference\.sampel' is not a known key.*'sample'"):
        read_recipe(SMOKE, ["preference.sampel.num_samples=3"])


def test_run_keeps_what_it_was_made_with(tmp_path: Path) -> None:
    checked = check_recipe(SMOKE, overrides=["seed=77", "prompts.limit=3"])
    run = start_run(checked, run_id="r", runs_root_folder=tmp_path)
    config, text = read_recipe(run.recipe)
    assert (config.seed, config.prompts.limit) == (77, 3)
    assert all(line in text for line in SMOKE.read_text().splitlines() if line.startswith("#"))
    plain = start_run(SMOKE, run_id="plain", runs_root_folder=tmp_path)
    assert plain.recipe.read_bytes() == SMOKE.read_bytes()
