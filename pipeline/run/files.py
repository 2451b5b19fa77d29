"""The templates and labeling files that a recipe names: where they are, copied, and loaded.

In:  the paths in a recipe, or the copies in a run folder
Out: templates, exemplars, calibration, follow-ups and canaries, loaded and checked
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.audits.canary_set import CanarySet, load_canaries
from pipeline.config import RunConfig
from pipeline.config.labeling import PreferenceConfig
from pipeline.config.paths import file_problem, resolve_path
from pipeline.config.training import DpaConfig
from pipeline.constitution import Constitution
from pipeline.errors import ConfigError
from pipeline.labeling.calibration import load_calibration
from pipeline.labeling.few_shot import check_exemplars, load_exemplars
from pipeline.labeling.follow_up_sets import load_follow_ups
from pipeline.labeling.inputs import LabelingFiles, Templates
from pipeline.labeling.known_labels import bound_error, load_known_labels
from pipeline.labeling.labelers import LABELERS, labeler_of
from pipeline.prompting.option_checks import check_option_labels, check_ratings, check_shows
from pipeline.prompting.templates import (
    JUDGE_VARIABLES,
    REQUEST_VARIABLES,
    SCORE_VARIABLES,
    PromptTemplate,
)
from pipeline.sources.config import load_mixture
from pipeline.sources.files import LIST_NAME, record_label_files
from pipeline.store import RunDir
from pipeline.store.files import copy_file

NAMED: dict[str, Callable[[PreferenceConfig], Path | None]] = {
    "exemplars.yaml": lambda c: c.judge.exemplars if c.judge.num_exemplars else None,
    "calibration.json": lambda c: c.judge.calibration,
    "follow_ups.yaml": lambda c: c.follow_up.follow_ups if labeler_of(c).uses_follow_ups else None,
    "known_labels.json": lambda c: c.pair.known_labels if c.enabled else None,
    "canaries.yaml": lambda c: c.audit.canaries if c.enabled and c.audit.enabled else None,
    LIST_NAME: lambda c: c.sources if c.enabled else None,
}
"""The labeling files by the name of their copy, each with the path that a recipe gives it: None
when the recipe does not name the file, or does not use it."""


@dataclass(frozen=True)
class RunFiles:
    """Everything that labels depend on, apart from recipe and constitution."""

    templates: Templates
    labeling: LabelingFiles
    canaries: CanarySet | None
    """None when the labels are not audited, or with generated canaries alone."""


def labeling_paths(config: RunConfig) -> dict[str, Path]:
    """The labeling files that the recipe uses, by the name of their copy."""
    named = {name: path_in(config.preference) for name, path_in in NAMED.items()}
    return {name: resolve_path(path) for name, path in named.items() if path is not None}


def template_paths(config: RunConfig) -> dict[str, Path]:
    """The templates that the recipe uses, by name."""
    templates = config.templates
    paths = {"critique": templates.critique, "revise": templates.revise, "judge": templates.judge}
    if labeler_of(config.preference).uses_score_template:
        paths["score"] = templates.score
    return {name: resolve_path(path) for name, path in paths.items()}


def copied_paths(run: RunDir, config: RunConfig) -> dict[Path, Path]:
    """The copies in a run folder, apart from the recipe's, each with its original."""
    return {
        run.constitution: resolve_path(config.constitution),
        **{run.root / "templates" / f"{n}.jinja": p for n, p in template_paths(config).items()},
        **{run.root / "labeling" / n: p for n, p in labeling_paths(config).items()},
    }


def load_files(
    config: RunConfig, constitution: Constitution, run: RunDir | None = None
) -> RunFiles:
    """Read and check the files that the recipe names, or their copies in `run`.

    Raises:
        ConfigError, TemplateError: the first mistake, with file and line.
    """
    templates, files = template_paths(config), labeling_paths(config)
    if run is not None:
        templates = {name: run.root / "templates" / f"{name}.jinja" for name in templates}
        files = {name: run.root / "labeling" / name for name in files}
    elif (unused := config.preference.judge.exemplars) and "exemplars.yaml" not in files:
        load_exemplars(resolve_path(unused))
    if LIST_NAME in files:
        load_mixture(files[LIST_NAME])
    canaries = files.get("canaries.yaml")
    return RunFiles(
        templates=_load_templates(templates, config),
        labeling=_load_labeling(files, config.preference, constitution),
        canaries=load_canaries(canaries) if canaries else None,
    )


def copy_files(run: RunDir, config: RunConfig) -> list[Path]:
    """Copy the constitution, the templates and the labeling files into a new run folder; returns
    the copies.

    Raises:
        ConfigError: a file is gone since the recipe was checked.
    """
    copies = []
    for copy, path in copied_paths(run, config).items():
        if problem := file_problem(path):
            raise ConfigError(
                f"{path} {problem}; it was there when the recipe was checked: restore it"
            )
        copy_file(path, copy)
        copies.append(copy)
        if copy.name == LIST_NAME:
            copies.append(record_label_files(run, load_mixture(copy)))
    return copies


def _load_templates(paths: dict[str, Path], config: RunConfig) -> Templates:
    variables = {"judge": JUDGE_VARIABLES, "score": SCORE_VARIABLES}
    loaded = {
        name: PromptTemplate.from_file(path, variables.get(name, REQUEST_VARIABLES))
        for name, path in paths.items()
    }
    for name, template in loaded.items():
        check_shows(template, name)
    check_option_labels(loaded["judge"], config.preference.judge)
    if "score" in loaded:
        check_ratings(loaded["score"], config.preference.score)
    return Templates(**loaded)


def _load_labeling(
    paths: dict[str, Path], config: PreferenceConfig, constitution: Constitution
) -> LabelingFiles:
    exemplars = calibration = follow_ups = known = bound = None
    labeler = labeler_of(config)
    unresolved = constitution.overrulers and not labeler.resolves_conflicts
    if config.enabled and unresolved and labeler.principles(config) != "none":
        resolving = [repr(name) for name, each in LABELERS.items() if each.resolves_conflicts]
        raise ConfigError(
            f"constitution '{constitution.name}' has principles in conflict, which labeler "
            f"'{config.labeler}' does not resolve; set preference.labeler to "
            f"{' or '.join(resolving)}, or remove the `conflicts`"
        )
    if isinstance(config.train, DpaConfig):
        ids = [principle.id for principle in constitution.principles]
        if unknown := [name for name in config.train.attributes if name not in ids]:
            raise ConfigError(
                f"train.attributes names '{unknown[0]}', but the principles of constitution "
                f"'{constitution.name}' are {', '.join(ids)}; correct the id"
            )
    if path := paths.get("exemplars.yaml"):
        exemplars = load_exemplars(path)
        check_exemplars(
            path,
            exemplars,
            constitution,
            config.judge.num_exemplars,
            with_rationale=config.judge.chain_of_thought is not None,
        )
    if path := paths.get("calibration.json"):
        calibration = load_calibration(path)
    if path := paths.get("follow_ups.yaml"):
        follow_ups = load_follow_ups(path)
        if config.follow_up.deduplicate:
            follow_ups = follow_ups.without_repeats()
    if path := paths.get("known_labels.json"):
        if not labeler_of(config).asks_a_model:
            raise ConfigError(
                f"pair.max_error needs labels of a model, but preference.labeler is "
                f"'{config.labeler}'; leave out pair.max_error, or set another labeler"
            )
        known = load_known_labels(path)
        bound = bound_error(known.labels, config.pair)
    return LabelingFiles(exemplars, calibration, follow_ups, known, bound)
