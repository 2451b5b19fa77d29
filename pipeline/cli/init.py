"""The command `init`: a folder with a constitution, prompts and a recipe that runs as it is."""

import json
import re
import shlex
from pathlib import Path

from pipeline.cli.terminal import say
from pipeline.config.overrides import override
from pipeline.config.paths import PROJECT_ROOT
from pipeline.errors import ConfigError

RECIPE = PROJECT_ROOT / "flows/configs/smoke.yaml"
PROMPTS = PROJECT_ROOT / "prompts/sets"
CONSTITUTIONS = PROJECT_ROOT / "constitutions"
MODEL_NOTE = """\
# These replies are scripted. For a model of your own, put in place of `policy`, for instance:
#   policy: {type: vllm, model: Qwen/Qwen3-8B}
# docs/recipes.md has all settings; of flows/configs, one_gpu.yaml trains, endpoint.yaml does not.
"""


def examples() -> list[str]:
    """The shipped constitutions that have training and held-out prompts of their own."""
    return sorted(
        path.stem
        for path in CONSTITUTIONS.glob("*.yaml")
        if (PROMPTS / f"{path.stem}.jsonl").exists()
        and (PROMPTS / f"{path.stem}_heldout.jsonl").exists()
    )


def init_folder(folder: Path, like: str) -> None:
    """Write a new folder and print what to do with it.

    Args:
        like: the shipped constitution to begin with.

    Raises:
        ConfigError: there is something at `folder`, or no such constitution; nothing is written.
    """
    if like not in examples():
        raise ConfigError(
            f"there is no example {like[:80]!r}; choose one of {', '.join(examples())}"
        )
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} exists already; name a folder that does not")
    copies = {
        "constitution.yaml": CONSTITUTIONS / f"{like}.yaml",
        "prompts.jsonl": PROMPTS / f"{like}.jsonl",
        "heldout.jsonl": PROMPTS / f"{like}_heldout.jsonl",
    }
    constitution, train, heldout = (json.dumps(str(folder / name)) for name in copies)
    values = [
        f"name={_recipe_name(folder)}",
        "description=Begun with `rlaif init`.",
        f"constitution={constitution}",
        f"prompts.train=[{train}]",
        f"prompts.heldout=[{heldout}]",
        f"policy.args.constitution={constitution}",
    ]
    text = override(_without_schema(RECIPE.read_text(encoding="utf-8")), values, "the recipe")
    folder.mkdir(parents=True)
    for name, source in copies.items():
        (folder / name).write_text(_without_schema(source.read_text("utf-8")), encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(text + MODEL_NOTE, encoding="utf-8")
    say(f"{folder} has a recipe, a constitution (from {like}) and prompts; edit them, then")
    say(f"  rlaif check {shlex.quote(str(recipe))}")
    say(f"  rlaif run {shlex.quote(str(recipe))}")


def _recipe_name(folder: Path) -> str:
    """The folder's name without what a recipe's name cannot have."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-_.")[:60] or "first"


def _without_schema(text: str) -> str:
    """The text without the line that names the schema for editors, which is not beside the copy."""
    return re.sub(r"\A# yaml-language-server.*\n", "", text)
