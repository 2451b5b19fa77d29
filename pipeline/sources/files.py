"""The label files that a recipe's source list names: checked, recorded, refused once changed.

In:  the source list of a recipe (preference.sources), or its copy in a run
Out: imported sources; and in the run

    labeling/sources.yaml   the list as it was when the run began
    labeling/sources.json   path and SHA-256 of each label file

The files themselves stay where they are.
"""

from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.config.paths import resolve_path
from pipeline.data.prompt_lines import display_path
from pipeline.errors import DataError
from pipeline.ids import file_hash
from pipeline.sources.config import AnySource, MixtureConfig, load_mixture
from pipeline.sources.importing import import_source
from pipeline.sources.rows import Imported
from pipeline.store.files import read_json, write_json
from pipeline.store.layout import RunDir

LIST_NAME = "sources.yaml"
LIST, HASHES = f"labeling/{LIST_NAME}", "labeling/sources.json"


def check_label_sources(config: RunConfig) -> list[str]:
    """Import everything that the recipe's source list names.

    Returns:
        One line per source for `rlaif check`; none when the recipe names no list.

    Raises:
        ConfigError: the list is wrong, or the recipe's training cannot learn from it.
        DataError: a file is wrong, with its line.
    """
    if config.preference.sources is None:
        return []
    train = config.preference.train
    listed = load_mixture(resolve_path(config.preference.sources), train.method if train else None)
    records = [each.record for each in _import(listed)]
    return ["; ".join(line.strip() for line in record.text().splitlines()) for record in records]


def record_label_files(run: RunDir, listed: MixtureConfig) -> Path:
    """Write labeling/sources.json; returns its path."""
    path = run.root / HASHES
    write_json(
        path,
        [
            {"source": source.name, "path": display_path(file), "sha256": file_hash(file)}
            for source in _resolved(listed)
            for file in source.paths
        ],
    )
    return path


def read_label_files(run: RunDir) -> tuple[MixtureConfig, list[Imported]]:
    """The source list that a run began with, and the imported sources in its order.

    Raises:
        DataError: a label file is missing, or has changed since the run began.
    """
    listed = load_mixture(run.root / LIST)
    _check_unchanged(run, listed)
    return listed, _import(listed)


def label_file(run: RunDir, source: str) -> dict[str, Any] | None:
    """Path and hash of the file that a source came from, as recorded when the run began."""
    entries = read_json(run.root / HASHES, list) or []
    return next((dict(entry) for entry in entries if entry["source"] == source), None)


def _import(listed: MixtureConfig) -> list[Imported]:
    return [import_source(source, seed=listed.seed) for source in _resolved(listed)]


def _check_unchanged(run: RunDir, listed: MixtureConfig) -> None:
    recorded = {
        (e["source"], e["path"]): e["sha256"] for e in read_json(run.root / HASHES, list) or []
    }
    for source in _resolved(listed):
        for path in source.paths:
            if not path.exists():
                raise DataError(
                    f"label file {path} of run {run.run_id} no longer exists; restore it"
                )
            if recorded.get((source.name, display_path(path))) != file_hash(path):
                raise DataError(
                    f"label file {path} has changed since run {run.run_id} began; restore the "
                    "old one, or start a new run"
                )


def _resolved(listed: MixtureConfig) -> list[AnySource]:
    """The file sources with absolute paths."""
    return [
        source.model_copy(update={n: resolve_path(v) for n, v in source if isinstance(v, Path)})
        for source in listed.files
    ]
