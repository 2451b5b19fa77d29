"""The card of a data set: what it is, how its labels were made, what it cannot do.

In:  dataset/manifest.json, the manifests of the run, and card.md.jinja beside this file
Out: dataset/README.md, in the form that the Hugging Face Hub reads

Every number comes from a manifest. License fields are left open on purpose: they follow from the
prompts and from the terms of the models, which a program cannot know.
"""

from collections import Counter
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.constitution import Constitution
from pipeline.data.dataset import DatasetManifest
from pipeline.data.markdown import code_span, escape_markdown, markdown_template
from pipeline.data.prompt_lines import display_path
from pipeline.labeling.conflicts import count_overruled, describe_overruled
from pipeline.labeling.contrast import PairContrast
from pipeline.labeling.known_labels import error_bound_of
from pipeline.labeling.labelers import labeler_of
from pipeline.store.files import read_json, write_text
from pipeline.store.layout import RunDir
from pipeline.store.shards import first_manifest
from pipeline.store.stage_names import (
    PREFERENCE,
    SUPERVISED,
    split_folder,
    stage_folders,
    stage_order,
    stage_title,
)


def write_card(
    run: RunDir,
    config: RunConfig,
    constitution: Constitution,
    manifest: DatasetManifest,
    contrast: PairContrast | None = None,
) -> None:
    """Write dataset/README.md.

    Args:
        contrast: of the run's pairs; None while they are not finished.
    """
    labeler = labeler_of(config.preference)
    unused = labeler.principles(config.preference) == "none"
    in_conflict = constitution.overrulers and not unused
    text = markdown_template(Path(__file__).with_name("card.md.jinja")).render(
        run=run,
        config=config,
        constitution=constitution,
        manifest=manifest,
        sets=[(name, Path(info.path).name, info) for name, info in sorted(manifest.sets.items())],
        labels=labeler.describe(config.preference),
        num_checked=0 if unused else len(constitution.checked),
        asks_a_model=labeler.asks_a_model,
        overruled=describe_overruled(count_overruled(run.root)) if in_conflict and contrast else "",
        bound=error_bound_of(run.root, config.preference.pair),
        contrast=contrast,
        audit=_audit(run),
        size=_size(max((info.rows for info in manifest.sets.values()), default=0)),
        models=_models(run),
    )
    write_text(run.dataset / "README.md", text)


def _size(rows: int) -> str:
    """The Hub's name for a number of rows."""
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))
    return next((name for most, name in bounds if rows < most), "n>1M")


def _audit(run: RunDir) -> str:
    """How many checks of labels and texts passed, in a sentence; empty without an audit."""
    audit = read_json(run.root / "preference" / "audit.json") or {}
    parts = [*(audit.get("judges") or []), audit.get("collapse") or {}]
    findings = [finding for part in parts for finding in part.get("findings", [])]
    counts = Counter(finding.get("status") for finding in findings)
    if not findings:
        return ""
    names = ", ".join(str(f.get("name")) for f in findings if f.get("status") == "failed")
    return (
        f"Of {len(findings)} checks of labels and texts before the export, {counts['passed']} "
        f"passed, {counts['failed']} failed{f' ({escape_markdown(names)})' if names else ''} "
        f"and {counts['skipped']} had too few rows to decide (docs/audits.md)."
    )


def _models(run: RunDir) -> list[tuple[str, str, str, str]]:
    """What each kind of stage made, by which model, its fingerprint and its engine."""
    # The rounds of revisions share a line; policies do not.
    first = {stage_title(folder): folder for folder in reversed(stage_folders(run.root))}
    rows = []
    for folder in sorted(first.values(), key=stage_order):
        manifest = first_manifest(run.root, folder)
        if split_folder(folder)[0] not in (SUPERVISED, PREFERENCE) or manifest is None:
            continue
        engine = manifest.engine
        model = engine.get("name", "")
        model = display_path(Path(model)) if Path(model).is_dir() else model
        rows.append(
            (
                stage_title(folder),
                code_span(model) if engine else "none",
                code_span(engine["fingerprint"][:16]) if engine else "",
                escape_markdown(engine.get("version", "")),
            )
        )
    return rows
