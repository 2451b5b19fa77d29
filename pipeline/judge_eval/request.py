"""The request of `rlaif judge-eval`: its options, their checks, and the hash that names it.

In:  recipe, label sources, options
Out: the first mistake as one line; a hash of all that decides the labels
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.config.paths import resolve_path
from pipeline.constitution import load_constitution
from pipeline.errors import ConfigError
from pipeline.ids import content_hash, file_hash
from pipeline.judge_eval.fit import Kind
from pipeline.labeling.calibration import load_calibration
from pipeline.labeling.known_labels import load_known_labels
from pipeline.labeling.labelers import LABELERS, labeler_of
from pipeline.run.files import labeling_paths, template_paths
from pipeline.sources.config import AnySource
from pipeline.sources.rows import Imported
from pipeline.store import RunDir
from pipeline.store.layout import check_folder_name


@dataclass(frozen=True)
class Request:
    """Recipe, label sources and options of one evaluation."""

    recipe: Path
    sources: tuple[AnySource, ...]
    limit: int | None = None
    name: str | None = None
    seed: int | None = None
    """None for the recipe's seed."""
    calibrate: Path | None = None
    """File for the fitted calibration; None for no calibration."""
    kind: Kind = "temperature"
    checked: RunDir | None = None
    """A run whose texts are compared where a check knows the truth, instead of `sources`."""
    known_labels: Path | None = None
    """File for the labels, which `pair.max_error` of a recipe needs; None for no file."""


def check_request(request: Request, config: RunConfig) -> None:
    """Raises ConfigError for what this recipe or these options cannot do."""
    if request.name is not None:
        check_folder_name(request.name, "--name")
    labeler = labeler_of(config.preference)
    if not labeler.asks_a_model:
        asking = [repr(name) for name, labeler in LABELERS.items() if labeler.asks_a_model]
        raise ConfigError(
            f"preference.labeler of {request.recipe} is '{config.preference.labeler}', but this "
            f"command measures a model that labels; set it to {' or '.join(asking)}"
        )
    taken = None
    for option, path, load in (
        ("--calibrate", request.calibrate, load_calibration),
        ("--known-labels", request.known_labels, load_known_labels),
    ):
        if path is None:
            continue
        if path.resolve() == taken or not _replaceable(path, load):
            raise ConfigError(
                f"{option} {path} would overwrite another file of this command or of yours; name "
                "a new one"
            )
        taken = path.resolve()
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise ConfigError(
                f"{option} {path} is a folder, or its folder does not exist; name a file in a "
                f"folder that exists, such as {option[2:].replace('-', '_')}.json"
            )
    if request.known_labels is not None and config.preference.pair.max_error is not None:
        raise ConfigError(
            f"{request.recipe} names known labels already; measure with a recipe that has no "
            "preference.pair.max_error and no preference.pair.known_labels"
        )
    drawn = labeler.principles(config.preference) != "none"
    if request.checked is not None and drawn and not labeler.has_orders:
        raise ConfigError(
            "a checked comparison is known under one principle, but labeler "
            f"'{config.preference.labeler}' of {request.recipe} draws its own; set it to 'judge', "
            "or to one that uses no principle"
        )
    if request.calibrate is None:
        return
    if not labeler.has_orders and request.kind != "temperature":
        raise ConfigError(
            f"--calibration-kind is '{request.kind}', but labeler '{config.preference.labeler}' "
            "gives scores, whose scale a temperature corrects; leave the option out"
        )
    if config.panel:
        raise ConfigError(
            f"{request.recipe} has a panel of {len(config.label_engines)} judges, but a "
            "calibration belongs to one judge; leave out `panel` or --calibrate"
        )
    if config.preference.judge.calibration is not None:
        raise ConfigError(
            f"{request.recipe} names a calibration already, but a calibration is fitted on raw "
            "labels; remove preference.judge.calibration or --calibrate"
        )


def _replaceable(path: Path, load: Callable[[Path], object]) -> bool:
    """Whether a path has no file yet, or one of the kind that will be written there."""
    if not path.is_file():
        return True
    try:
        load(path)
    except ConfigError:
        return False
    return True


def require_judged(path: Path, config: RunConfig) -> None:
    """Raises ConfigError when the recipe at `path` has no principle that its labeler could use
    beside the checks.
    """
    if labeler_of(config.preference).principles(config.preference) == "none":
        return
    if not load_constitution(resolve_path(config.constitution)).judged:
        raise ConfigError(
            f"a program decides every principle of {config.constitution}, so no judge is asked; "
            f"name a recipe with principles that a judge decides instead of {path}"
        )


def identity_of(request: Request, config: RunConfig, imports: Sequence[Imported], seed: int) -> str:
    """Hash of everything that decides the labels, by content: one folder holds one evaluation."""
    paths = [
        request.recipe,
        resolve_path(config.constitution),
        resolve_path(config.templates.judge),
        *([template_paths(config)["score"]] if "score" in template_paths(config) else []),
        *labeling_paths(config).values(),
    ]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ConfigError(f"{missing[0]} does not exist; correct the path in {request.recipe}")
    return content_hash(
        [
            [file_hash(path) for path in paths],
            [
                source.model_dump(mode="json", exclude={"path", "responses"})
                for source in request.sources
            ],
            [each.record.sha256 for each in imports],
            request.limit,
            seed,
            # Experts' answers are paired with responses from a second file.
            *(file_hash(path) for source in request.sources for path in source.paths[1:]),
        ]
    )[:16]
