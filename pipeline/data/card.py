"""The card of a data set: what it is, how its labels were made, what it cannot do. Markdown.

In:  dataset/manifest.json and the manifests of the run
Out: dataset/README.md, in the form that the Hugging Face Hub reads

Every number comes from a manifest. License fields are left open on purpose: they follow from the
prompts and from the terms of the models, which a program cannot know.
"""

from collections.abc import Iterable
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.constitution import Constitution
from pipeline.data.dataset import DatasetManifest, SetInfo
from pipeline.data.prompt_lines import display_path
from pipeline.labeling.labelers import labeler_of
from pipeline.store.files import write_text
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

FIELDS = {
    "sft": (
        ("messages", "the conversation, ending with a user turn"),
        ("completion", "the revision to learn from"),
        ("round", "critique-revision rounds behind it; 0 for an unrevised response"),
        ("completion_id, prompt_id", "rows of the run, for `rlaif trace`"),
    ),
    "preference": (
        ("messages", "the conversation, ending with a user turn"),
        ("chosen, rejected", "the two responses"),
        ("soft_label", "P(chosen is preferred), in [0.5, 1], mean of both orders"),
        ("margin", "log-odds of it, in nats"),
        ("position_gap", "how far the two orders were apart, in [0, 1]"),
        ("principle_id", "the principle under which they were compared; empty for other sources"),
        (
            "source, source_index",
            "who labeled the pair, and the line in the file of another source",
        ),
        ("judgment_id, chosen_id, rejected_id, prompt_id", "rows of the run, for `rlaif trace`"),
    ),
    "feedback": (
        ("messages", "the conversation, ending with a user turn"),
        ("completion", "the one reply that users judged"),
        ("label", "true where they liked it"),
        ("weight", "strength of the evidence, in (0, 1]; a regenerate event alone is weaker"),
        ("events", "the events that it sums up"),
        ("source, source_index", "the source, and the line of the first event in its file"),
        ("completion_id, prompt_id", "ids of the texts, the same in every source"),
    ),
}
SOURCES_NOTE = {
    "preference": "Label accuracy is the probability that a label of the source is right; it is "
    "the soft label of its pairs. Other sources have no principle. Prompts that are held out were "
    "left out of them.\n",
    "feedback": "Each reply is judged on its own, good or bad. Prompts that are held out were left "
    "out.\n",
}
FRONT = """\
---
license: other
license_name: not-set
license_link: ""
tags: [preference, constitutional-ai, rlaif, dpo]
configs:
{configs}---
"""
LICENSE = """\
Not set. It follows from the license of the prompts and from the terms of the models that wrote
and judged the texts; fill in `license`, `license_name` and `license_link` before publishing.
"""
LIMITS = """\
- The labels of the run itself are a model's, not people's: they carry its blind spots and follow the
  wording of the principles. The mean over both orders cancels a preference for a slot, not one for length, style
  or the judge's own phrasing.
- Where judge and policy are one model, it judges its own texts.
- The texts were written by a model and may be wrong, biased or harmful, the rejected ones above all.
- The prompts decide what the data covers; nothing here says that it is representative.
"""


def write_card(
    run: RunDir, config: RunConfig, constitution: Constitution, manifest: DatasetManifest
) -> None:
    """Write dataset/README.md."""
    parts = [
        FRONT.format(
            configs="".join(
                f"- config_name: {name}\n  data_files: {Path(info.path).name}\n"
                for name, info in sorted(manifest.sets.items())
            )
        ),
        f"# {config.name}\n",
        config.description and f"{config.description}\n",
        _origin(run, config, constitution, manifest),
        *(_set(name, info) for name, info in sorted(manifest.sets.items())),
        "## How the labels were made\n",
        _labels(config),
        "## Models\n",
        _models(run),
        "## Limits\n",
        LIMITS,
        "## License\n",
        LICENSE,
    ]
    write_text(run.dataset / "README.md", "\n".join(part for part in parts if part))


def _origin(
    run: RunDir, config: RunConfig, constitution: Constitution, manifest: DatasetManifest
) -> str:
    parent = manifest.parent
    before = f", after version {parent.version} of run `{parent.run_id}`" if parent else ""
    return _table(
        ("", ""),
        [
            ("run", f"`{run.run_id}`"),
            ("version", f"{manifest.version}{before}"),
            ("data set id", f"`{manifest.dataset_id}`"),
            ("prompts", f"{manifest.num_prompts:,}"),
            (
                "constitution",
                f"{constitution.name}, {len(constitution.principles)} principles, "
                f"`{constitution.hash}` ([constitution.yaml](constitution.yaml))",
            ),
            ("recipe", f"seed {config.seed} ([recipe.yaml](recipe.yaml))"),
        ],
    )


def _set(name: str, info: SetInfo) -> str:
    lines = [f"## {Path(info.path).name}\n", f"{info.rows:,} rows"]
    if info.from_parent:
        lines[-1] += f", {info.from_parent:,} of them from the version before"
    lines[-1] += f"; SHA-256 `{info.sha256}`.\n"
    lines.append(_table(("column", "meaning"), [(f"`{a}`", b) for a, b in FIELDS.get(name, ())]))
    rows = [("kept", f"{info.rows - info.from_parent:,}")]
    rows += [(f"left out: {reason}", f"{count:,}") for reason, count in info.reasons.items()]
    whose = "this run and its label sources" if info.sources else "this run"
    lines.append(_table((f"of {info.candidates:,} rows of {whose}", "rows"), rows))
    return "\n".join(lines + _sources(name, info))


def _sources(name: str, info: SetInfo) -> list[str]:
    """Where labels come from besides the run; nothing when they do not."""
    if not info.sources:
        return []
    head = (
        "source",
        "labeled by",
        "rows",
        "usable",
        "selected",
        "weight",
        "label accuracy",
        "SHA-256 of the file",
    )
    return [
        "### Label sources\n",
        _table(
            head,
            [
                (
                    each.name,
                    each.kind,
                    f"{each.rows:,}",
                    f"{each.usable:,}",
                    f"{each.num_selected:,}"
                    + (f" of {each.quota:,}" if each.num_selected < each.quota else ""),
                    "all" if each.weight is None else f"{each.weight:g}",
                    "each row's own" if each.label_accuracy is None else f"{each.label_accuracy:g}",
                    f"`{each.file}` `{each.sha256}`" if each.file else "",
                )
                for each in info.sources
            ],
        ),
        SOURCES_NOTE[name],
    ]


def _labels(config: RunConfig) -> str:
    pair = config.preference.pair
    return (
        f"Comparisons: `{config.preference.comparisons}`. {labeler_of(config.preference).describe(config.preference)}"
        f"\n\nLeft out: labels within {pair.tie_width:g} of 0.5, margins below {pair.min_margin:g} nats"
        + (", pairs on which the orders disagree" if pair.require_orders_agree else "")
        + (", truncated responses" if pair.drop_truncated else "")
        + ", empty and identical responses, and further labels of the same two texts of a prompt.\n"
    )


def _models(run: RunDir) -> str:
    rows = []
    first = {split_folder(folder)[:2]: folder for folder in reversed(stage_folders(run.root))}
    for folder in sorted(first.values(), key=stage_order):
        manifest = first_manifest(run.root, folder)
        if split_folder(folder)[0] not in (SUPERVISED, PREFERENCE) or manifest is None:
            continue
        engine = manifest.engine
        rows.append(
            (
                stage_title(folder),
                f"`{_model_name(engine['name'])}`" if engine else "none",
                f"`{engine['fingerprint'][:16]}`" if engine else "",
                engine.get("version", ""),
            )
        )
    return _table(("rows", "model", "fingerprint", "engine"), rows)


def _model_name(name: str) -> str:
    return display_path(Path(name)) if Path(name).is_dir() else name


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return (
        "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
        )
        + "\n"
    )
