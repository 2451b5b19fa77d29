"""How often the labels of the preference data are right, where an oracle knows.

In:  shards of preference/judge and preference/pair, the texts that they name, the constitution
Out: accuracy of all labels (raw) and of those that became pairs (kept)

The truth of a label is the oracle's comparison under the attributes that the principle's tags name,
or, for labels from follow-ups, under those that are called as the categories are.
Only clear cases count: both texts inside the world, and of different level. A label of exactly 0.5
is half right (Lee et al. 2023, alignment). Labels under a principle without such a tag, of equal
texts, or of texts outside the world have no truth and are counted apart.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.constitution import Constitution
from pipeline.evaluation.oracle import Oracle, clear_preference, oracle_messages
from pipeline.evaluation.policy_measures import Tally, as_dict
from pipeline.evaluation.shard_columns import (
    RowDict,
    conversations,
    iter_shards,
    label_folder,
    read_columns,
    texts_by_id,
)
from pipeline.soft_labels import outcome
from pipeline.stats import brier, calibration_error
from pipeline.store.shards import Manifest, load_manifest, stage_manifests

JUDGE_COLUMNS = (
    "row_id",
    "prompt_id",
    "status",
    "first_id",
    "second_id",
    "principle_id",
    "soft_label",
    "parts",
)


@dataclass
class Truth:
    """Running counts over shards."""

    raw: Tally = field(default_factory=Tally)
    kept: Tally = field(default_factory=Tally)
    by_attribute: dict[str, Tally] = field(default_factory=dict)
    labels: "array[float]" = field(default_factory=lambda: array("d"))
    truths: "array[float]" = field(default_factory=lambda: array("d"))
    equal_deviation: float = 0.0
    equal: int = 0
    outside: int = 0
    no_attribute: int = 0

    def summary(self) -> dict[str, Any]:
        """The entry of metrics.json."""
        known = len(self.labels)
        return {
            "accuracy_raw": as_dict(self.raw.share()),
            "accuracy_kept": as_dict(self.kept.share()),
            "equal_pairs": self.equal,
            "outside": self.outside,
            "no_attribute": self.no_attribute,
            "equal_deviation": self.equal_deviation / self.equal if self.equal else None,
            "brier": brier(self.labels, self.truths) if known else None,
            "calibration_error": calibration_error(self.labels, self.truths) if known else None,
            "by_attribute": {
                name: as_dict(tally.share()) for name, tally in sorted(self.by_attribute.items())
            },
        }


def label_truth(root: Path, constitution: Constitution, oracle: Oracle) -> dict[str, Any] | None:
    """The entry `labels` of metrics.json; None when nothing was judged."""
    pairs = {m.shard_index: m for m in stage_manifests(root, "preference/pair")}
    tags = {p.id: p.tags for p in constitution.principles}
    truth, judged = Truth(), False
    for manifest, rows in iter_shards(root, label_folder(root), JUDGE_COLUMNS):
        judged = True
        pair = pairs.get(manifest.shard_index)
        kept = (
            _kept_judgments(read_columns(root, pair.path, ["judgment_id", "status"]))
            if pair
            else set()
        )
        paths = _text_paths(root, manifest)
        prompts: dict[str, list[dict[str, str]]] = {}
        for path in paths:
            if Path(path).parent.name == "prompts":
                prompts.update(conversations(root, path))
        _add_shard(truth, rows, kept, prompts, texts_by_id(root, paths), tags, oracle)
    return truth.summary() if judged else None


def _text_paths(root: Path, manifest: Manifest) -> list[str]:
    """The inputs of a label shard; for a pooled one, those of the verdicts behind it."""
    paths: dict[str, None] = {}
    for path in manifest.inputs:
        parent = Path(path).parent
        if parent.name.startswith("judge"):
            inner = load_manifest(root, str(parent), manifest.shard_index)
            paths.update(dict.fromkeys(inner.inputs if inner else ()))
        else:
            paths[path] = None
    return list(paths)


def _kept_judgments(rows: Sequence[RowDict]) -> set[str]:
    return {row["judgment_id"] for row in rows if row["status"] == "ok"}


def _add_shard(
    truth: Truth,
    rows: Sequence[RowDict],
    kept: set[str],
    prompts: Mapping[str, list[dict[str, str]]],
    texts: Mapping[str, str],
    tags: Mapping[str, Sequence[str]],
    oracle: Oracle,
) -> None:
    raw: dict[str, list[float]] = {}
    paired: dict[str, list[float]] = {}
    for row in rows:
        if row["status"] != "ok" or row["soft_label"] is None:
            continue
        right = _score(truth, row, prompts[row["prompt_id"]], texts, tags, oracle)
        if right is not None:
            raw.setdefault(row["prompt_id"], []).append(right)
            if row["row_id"] in kept:
                paired.setdefault(row["prompt_id"], []).append(right)
    for values in raw.values():
        truth.raw.add(values)
    for values in paired.values():
        truth.kept.add(values)


def _score(
    truth: Truth,
    row: RowDict,
    messages: list[dict[str, str]],
    texts: Mapping[str, str],
    tags: Mapping[str, Sequence[str]],
    oracle: Oracle,
) -> float | None:
    """1 for a right label, 0 for a wrong one, 0.5 for 0.5; None without a clear truth."""
    asked = oracle_messages(messages)
    first = oracle.read(asked, texts[row["first_id"]])
    second = oracle.read(asked, texts[row["second_id"]])
    if first is None or second is None:
        truth.outside += 1
        return None
    # A pooled label stands under all of its principles; one from follow-ups under its categories.
    named = [tag for name in row["principle_id"].split("+") for tag in tags.get(name, ())]
    named += [] if row["principle_id"] else row["parts"]
    attributes = [tag for tag in dict.fromkeys(named) if tag in first.levels]
    if not attributes:
        truth.no_attribute += 1
        return None
    sign, label = clear_preference(first, second, attributes), row["soft_label"]
    if sign == 0:
        truth.equal += 1
        truth.equal_deviation += abs(label - 0.5)
        return None
    truth.labels.append(label)
    truth.truths.append(float(sign > 0))
    right = outcome(label) if sign > 0 else 1.0 - outcome(label)
    for name in attributes:
        truth.by_attribute.setdefault(name, Tally()).add([right])
    return right
