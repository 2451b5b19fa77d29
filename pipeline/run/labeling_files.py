"""The files that a labeling method reads besides its template, copied into the run like the recipe.

In:  the paths in a recipe, or the copies in a run folder
Out: exemplars, calibration, follow-ups and canaries, loaded
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.audits.canary_set import CanarySet, load_canaries
from pipeline.config import RunConfig
from pipeline.config.paths import resolve_path
from pipeline.constitution import Constitution
from pipeline.labeling.calibration import Calibration, load_calibration
from pipeline.labeling.few_shot import ExemplarSet, check_exemplars, load_exemplars
from pipeline.labeling.follow_up_sets import FollowUpSet, load_follow_ups
from pipeline.sources.config import load_mixture
from pipeline.sources.files import LIST_NAME, record_label_files
from pipeline.store import RunDir


@dataclass(frozen=True)
class LabelingFiles:
    """What a labeling method reads; None for what the recipe does not name."""

    exemplars: ExemplarSet | None = None
    calibration: Calibration | None = None
    follow_ups: FollowUpSet | None = None
    """As they are asked: without repeats, unless the recipe keeps them."""
    canaries: CanarySet | None = None


def labeling_paths(config: RunConfig) -> dict[str, Path]:
    """The files that the recipe names and uses, by the name of their copy."""
    judge = config.preference.judge
    found: dict[str, Path] = {}
    if judge.exemplars is not None and judge.num_exemplars:
        found["exemplars.yaml"] = resolve_path(judge.exemplars)
    if judge.calibration is not None:
        found["calibration.json"] = resolve_path(judge.calibration)
    if config.preference.labeler == "follow_up":
        found["follow_ups.yaml"] = resolve_path(config.preference.follow_up.follow_ups)
    audit = config.preference.audit
    if config.preference.enabled and audit.enabled and audit.canaries is not None:
        found["canaries.yaml"] = resolve_path(audit.canaries)
    if config.preference.enabled and config.preference.sources is not None:
        found[LIST_NAME] = resolve_path(config.preference.sources)
    return found


def load_labeling_files(
    paths: dict[str, Path], config: RunConfig, constitution: Constitution
) -> LabelingFiles:
    """Read and check them. Raises ConfigError with file and line."""
    judge = config.preference.judge
    exemplars = calibration = follow_ups = canaries = None
    if path := paths.get("exemplars.yaml"):
        exemplars = load_exemplars(path)
        check_exemplars(
            path,
            exemplars,
            constitution,
            judge.num_exemplars,
            with_rationale=judge.chain_of_thought is not None,
        )
    if path := paths.get("calibration.json"):
        calibration = load_calibration(path)
    if path := paths.get("follow_ups.yaml"):
        follow_ups = load_follow_ups(path)
        if config.preference.follow_up.deduplicate:
            follow_ups = follow_ups.without_repeats()
    if path := paths.get("canaries.yaml"):
        canaries = load_canaries(path)
    if path := paths.get(LIST_NAME):
        load_mixture(path)
    return LabelingFiles(
        exemplars=exemplars, calibration=calibration, follow_ups=follow_ups, canaries=canaries
    )


def copy_labeling_files(run: RunDir, config: RunConfig) -> list[Path]:
    """Copy them into the run; returns the copies."""
    copies = []
    for name, path in labeling_paths(config).items():
        copy = run.root / "labeling" / name
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
        copies.append(copy)
        if name == LIST_NAME:
            copies.append(record_label_files(run, load_mixture(copy)))
    return copies


def copied_labeling_files(run: RunDir, config: RunConfig) -> dict[str, Path]:
    """The copies in a run folder, by name."""
    return {name: run.root / "labeling" / name for name in labeling_paths(config)}
