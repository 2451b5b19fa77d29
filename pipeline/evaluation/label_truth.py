"""How often the labels of the preference data are right, where an oracle knows.

In:  shards of preference/judge and preference/pair, the texts that they name, the constitution
Out: accuracy of all labels (raw) and of those that became pairs (kept)

The truth of a label is the oracle's comparison under the attributes that the principle's tags name,
or, for labels from follow-ups, under those named like the categories. Only clear cases count: both
texts inside the world, and of different level. A label of exactly 0.5 is half right (Lee et al.
2023, alignment). Labels under a principle without such a tag, of equal texts, or of texts outside
the world have no truth and are counted apart.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.constitution import Constitution
from pipeline.evaluation.oracle import Oracle, OracleMessages, clear_preference, oracle_messages
from pipeline.evaluation.results import LabelTruth
from pipeline.evaluation.shard_columns import (
    RowDict,
    conversations,
    grouped,
    iter_shards,
    label_folder,
    read_columns,
    texts_by_id,
)
from pipeline.soft_labels import outcome
from pipeline.stats import Tally, brier, calibration_error
from pipeline.store.shards import Manifest, load_manifest, stage_manifests
from pipeline.store.stage_names import JUDGE, PAIRS, PROMPTS, split_folder

JUDGE_COLUMNS = (
    "row_id",
    "prompt_id",
    "status",
    "first_id",
    "second_id",
    "principle_id",
    "prob_first",
    "parts",
)


@dataclass
class TruthCounts:
    """Running counts over shards."""

    oracle: Oracle
    tags: Mapping[str, tuple[str, ...]]
    """Tags by id of the principle."""
    raw: Tally = field(default_factory=Tally)
    kept: Tally = field(default_factory=Tally)
    by_attribute: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    labels: list[float] = field(default_factory=list)
    """Labels with a clear truth, and beside them 1 where the first response is the better one."""
    truths: list[float] = field(default_factory=list)
    equal_deviation: float = 0.0
    equal: int = 0
    outside: int = 0
    no_attribute: int = 0

    def add_prompt(
        self,
        rows: list[RowDict],
        kept: set[str],
        messages: OracleMessages,
        texts: Mapping[str, str],
    ) -> None:
        """All labels of one prompt; `kept` are the ids of those that became pairs."""
        by_attribute: dict[str, list[float]] = defaultdict(list)
        scores = {
            row["row_id"]: self._score(row, messages, texts, by_attribute)
            for row in rows
            if row["status"] == "ok" and row["prob_first"] is not None
        }
        known = {row_id: score for row_id, score in scores.items() if score is not None}
        if known:
            self.raw.add(list(known.values()))
        if pairs := [score for row_id, score in known.items() if row_id in kept]:
            self.kept.add(pairs)
        for name, values in by_attribute.items():
            self.by_attribute[name].add(values)

    def _score(
        self,
        row: RowDict,
        messages: OracleMessages,
        texts: Mapping[str, str],
        by_attribute: dict[str, list[float]],
    ) -> float | None:
        """1 for a right label, 0 for a wrong one, 0.5 for 0.5; None without a clear truth."""
        first = self.oracle.read(messages, texts[row["first_id"]])
        second = self.oracle.read(messages, texts[row["second_id"]])
        if first is None or second is None:
            self.outside += 1
            return None
        # A pooled label counts under all of its principles, one from follow-ups under its parts.
        names = row["principle_id"].split("+") if row["principle_id"] else []
        tags = [tag for name in names for tag in self.tags.get(name, ())] if names else row["parts"]
        attributes = [tag for tag in dict.fromkeys(tags) if tag in first.levels]
        if not attributes:
            self.no_attribute += 1
            return None
        sign, label = clear_preference(first, second, attributes), row["prob_first"]
        if sign == 0:
            self.equal += 1
            self.equal_deviation += abs(label - 0.5)
            return None
        self.labels.append(label)
        self.truths.append(float(sign > 0))
        first_wins = outcome(label)
        score = first_wins if sign > 0 else 1.0 - first_wins
        for name in attributes:
            by_attribute[name].append(score)
        return score

    def metrics(self) -> LabelTruth:
        """The entry of metrics.json."""
        return LabelTruth(
            accuracy_raw=self.raw.share(),
            accuracy_kept=self.kept.share(),
            equal_pairs=self.equal,
            outside=self.outside,
            no_attribute=self.no_attribute,
            equal_deviation=self.equal_deviation / self.equal if self.equal else None,
            brier=brier(self.labels, self.truths) if self.labels else None,
            calibration_error=calibration_error(self.labels, self.truths) if self.labels else None,
            by_attribute={name: tally.share() for name, tally in sorted(self.by_attribute.items())},
        )


def label_truth(root: Path, constitution: Constitution, oracle: Oracle) -> LabelTruth | None:
    """The entry `labels` of metrics.json; None when nothing was judged."""
    pairs = {m.shard_index: m.path for m in stage_manifests(root, PAIRS)}
    truth = TruthCounts(oracle, {p.id: p.tags for p in constitution.principles})
    judged = False
    for manifest, rows in iter_shards(root, label_folder(root), JUDGE_COLUMNS):
        judged = True
        path = pairs.get(manifest.shard_index)
        pair_rows = read_columns(root, path, ("judgment_id", "status")) if path else []
        kept = {row["judgment_id"] for row in pair_rows if row["status"] == "ok"}
        paths = _text_paths(root, manifest)
        prompts = {
            row_id: oracle_messages(messages)
            for path in paths
            if Path(path).parent.name == PROMPTS
            for row_id, messages in conversations(root, path).items()
        }
        texts = texts_by_id(root, paths)
        for prompt_id, group in grouped(rows, "prompt_id").items():
            truth.add_prompt(group, kept, prompts[prompt_id], texts)
    return truth.metrics() if judged else None


def _text_paths(root: Path, manifest: Manifest) -> list[str]:
    """The inputs of a label shard; for a pooled one, those of the verdicts behind it."""
    paths: dict[str, None] = {}
    for path in manifest.inputs:
        folder = str(Path(path).parent)
        if split_folder(folder)[1] == JUDGE:
            inner = load_manifest(root, folder, manifest.shard_index)
            paths.update(dict.fromkeys(inner.inputs if inner else ()))
        else:
            paths[path] = None
    return list(paths)
