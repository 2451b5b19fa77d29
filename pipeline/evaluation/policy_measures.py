"""What each policy answers to the held-out prompts: length, endings, and, where there is an
oracle, how many replies are harmless and good.

In:  shards of heldout/ and evaluation/sample-<policy>/
Out: one entry per policy, and its change against the initial policy on the same prompts

A text outside the oracle's world counts as neither harmless nor harmful and as not good: it
lowers both shares, so that a policy that has collapsed cannot look harmless. It is reported on
its own too.
"""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.evaluation.oracle import Oracle, oracle_messages
from pipeline.evaluation.shard_columns import RowDict, conversations, read_columns
from pipeline.stats import Estimate, clustered_share, paired_change
from pipeline.store import Manifest
from pipeline.store.shards import stage_manifests

INITIAL = "initial"
ORACLE_SHARES = (
    "harmless",
    "good",
    "good_on_harmless",
    "good_on_misdeed",
    "refused_harmless",
    "outside_world",
)
TEXT_SHARES = ("truncated", "empty")
MEANS = ("tokens", "words")
COLUMNS = ("prompt_id", "status", "response", "finish_reason", "num_tokens")
_PREFIX = "sample-"


@dataclass
class Tally:
    """One measure of one policy: its sum and number of observations per prompt."""

    sums: "array[float]" = field(default_factory=lambda: array("d"))
    counts: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, values: list[float]) -> None:
        """Append one prompt."""
        self.sums.append(sum(values))
        self.counts.append(len(values))

    def share(self) -> Estimate | None:
        """Share with its interval; None without observations."""
        return clustered_share(self.sums, self.counts)

    def mean(self) -> float | None:
        """Mean over all observations."""
        return sum(self.sums) / sum(self.counts) if any(self.counts) else None


Tallies = dict[str, Tally]


def policy_names(root: Path) -> list[str]:
    """Policies with samples on held-out prompts, the initial one first."""
    order = {INITIAL: 0, "sl_cai": 1, "tuned": 2}
    names = [
        path.name.removeprefix(_PREFIX)
        for path in (root / "evaluation").glob(f"{_PREFIX}*")
        if stage_manifests(root, f"evaluation/{path.name}")
    ]
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def measure_policies(
    root: Path, oracle: Oracle | None, *, draws: int, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Entries of `policies` and of `changes` in metrics.json."""
    names = policy_names(root)
    manifests = {name: stage_manifests(root, f"evaluation/{_PREFIX}{name}") for name in names}
    tallies = _count(root, manifests, oracle)
    policies = {
        name: _entry(manifests[name], tallies[name], with_oracle=oracle is not None)
        for name in names
    }
    if INITIAL not in tallies:
        return policies, {}
    changes = {
        name: _changes(tallies[INITIAL], tallies[name], draws, seed)
        for name in names
        if name != INITIAL
    }
    return policies, changes


def observe(
    row: RowDict, misdeed: bool | None, messages: list[dict[str, str]], oracle: Oracle | None
) -> dict[str, float]:
    """The measures of one response; a measure that does not apply is left out.

    Args:
        misdeed: what the prompt asks for; None when the oracle does not know the prompt.
    """
    text = row["response"]
    seen: dict[str, float] = {
        "truncated": row["finish_reason"] == "length",
        "empty": not text.strip(),
        "tokens": row["num_tokens"],
        "words": len(text.split()),
    }
    if oracle is None or misdeed is None:
        return seen
    reading = oracle.read(messages, text)
    good = reading is not None and reading.good
    seen |= {"outside_world": reading is None, "good": good}
    if misdeed:
        seen |= {"harmless": reading is not None and not reading.harmful, "good_on_misdeed": good}
    else:
        declined = reading is not None and reading.levels.get("caution", 0) == 1
        seen |= {"refused_harmless": declined, "good_on_harmless": good}
    return seen


def _count(
    root: Path, manifests: Mapping[str, list[Manifest]], oracle: Oracle | None
) -> dict[str, Tallies]:
    """Tallies by policy; in all of them, prompt number i is the same prompt."""
    measures = (*TEXT_SHARES, *MEANS, *(ORACLE_SHARES if oracle else ()))
    tallies = {name: {measure: Tally() for measure in measures} for name in manifests}
    by_index = {name: {m.shard_index: m for m in found} for name, found in manifests.items()}
    for heldout in stage_manifests(root, "heldout"):
        prompts = conversations(root, heldout.path)
        asked = {row_id: oracle_messages(messages) for row_id, messages in prompts.items()}
        tasks = {row_id: oracle.task(m) if oracle else None for row_id, m in asked.items()}
        for name in manifests:
            manifest = by_index[name].get(heldout.shard_index)
            rows = read_columns(root, manifest.path, COLUMNS) if manifest else []
            grouped = _by_prompt(rows)
            for row_id, messages in asked.items():
                task = tasks[row_id]
                seen = [
                    observe(row, task.misdeed if task else None, messages, oracle)
                    for row in grouped.get(row_id, [])
                ]
                for measure, tally in tallies[name].items():
                    tally.add([s[measure] for s in seen if measure in s])
    return tallies


def _by_prompt(rows: Iterable[RowDict]) -> dict[str, list[RowDict]]:
    groups: dict[str, list[RowDict]] = {}
    for row in rows:
        if row["status"] == "ok":
            groups.setdefault(row["prompt_id"], []).append(row)
    return groups


def _entry(manifests: list[Manifest], tallies: Tallies, *, with_oracle: bool) -> dict[str, Any]:
    engine = manifests[0].engine
    oracle = (
        {name: as_dict(tallies[name].share()) for name in ORACLE_SHARES} if with_oracle else None
    )
    return {
        "model": engine.get("name", ""),
        "fingerprint": engine.get("fingerprint", ""),
        "num_responses": sum(tallies["words"].counts),
        "num_prompts": sum(count > 0 for count in tallies["words"].counts),
        **{f"mean_{name}": tallies[name].mean() for name in MEANS},
        **{
            f"{name}_share": share.share if (share := tallies[name].share()) else None
            for name in TEXT_SHARES
        },
        "oracle": oracle,
    }


def _changes(before: Tallies, after: Tallies, draws: int, seed: int) -> dict[str, Any]:
    return {
        name: as_dict(
            paired_change(
                (before[name].sums, before[name].counts),
                (after[name].sums, after[name].counts),
                draws=draws,
                seed=seed,
            )
        )
        for name in before
    }


def as_dict(estimate: Estimate | None) -> dict[str, float] | None:
    """An estimate as metrics.json holds it."""
    return estimate.as_dict() if estimate else None
