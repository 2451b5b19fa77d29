"""The files that a labeling method reads besides its template, copied into the run like the recipe.

In:  the paths in a recipe, or the copies in a run folder
Out: exemplars and calibration, loaded
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.calibration import Calibration, load_calibration
from pipeline.config import RunConfig, resolve_path
from pipeline.constitution import Constitution
from pipeline.exemplars import ExemplarSet, check_exemplars, load_exemplars
from pipeline.store import RunDir


@dataclass(frozen=True)
class LabelingFiles:
    """What a labeling method reads; None for what the recipe does not name."""

    exemplars: ExemplarSet | None = None
    calibration: Calibration | None = None


def labeling_paths(config: RunConfig) -> dict[str, Path]:
    """The files that the recipe names and uses, by the name of their copy."""
    judge = config.preference.judge
    found: dict[str, Path] = {}
    if judge.exemplars is not None and judge.num_exemplars:
        found["exemplars.yaml"] = resolve_path(judge.exemplars)
    if judge.calibration is not None:
        found["calibration.json"] = resolve_path(judge.calibration)
    return found


def load_labeling_files(
    paths: dict[str, Path], config: RunConfig, constitution: Constitution
) -> LabelingFiles:
    """Read and check them. Raises ConfigError with file and line."""
    judge = config.preference.judge
    exemplars = calibration = None
    if path := paths.get("exemplars.yaml"):
        exemplars = load_exemplars(path)
        check_exemplars(
            path, exemplars, constitution, judge.num_exemplars,
            with_rationale=judge.chain_of_thought is not None,
        )
    if path := paths.get("calibration.json"):
        calibration = load_calibration(path)
    return LabelingFiles(exemplars=exemplars, calibration=calibration)


def copy_labeling_files(run: RunDir, config: RunConfig) -> list[Path]:
    """Copy them into the run; returns the copies."""
    copies = []
    for name, path in labeling_paths(config).items():
        copy = run.root / "labeling" / name
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
        copies.append(copy)
    return copies


def copied_labeling_files(run: RunDir, config: RunConfig) -> dict[str, Path]:
    """The copies in a run folder, by name."""
    return {name: run.root / "labeling" / name for name in labeling_paths(config)}
