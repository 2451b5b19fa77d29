"""Replies of each policy to the held-out prompts: length, endings, the checks of the constitution
that they hold, and, where there is an oracle, how many are harmless and good.

In:  shards of heldout/ and evaluation/sample-<policy>/
Out: one entry per policy, and its change against the initial policy on the same prompts

A text outside the oracle's world counts as neither harmless nor harmful and as not good: it
lowers both shares, so that a collapsed policy cannot look harmless. Its share is reported on its
own too.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.constitution import Constitution
from pipeline.evaluation.held_checks import ALL, check_measures, measure_name, observe_checks
from pipeline.evaluation.oracle import Oracle, OracleMessages, Task, oracle_messages
from pipeline.evaluation.results import OracleShares, PolicyMetrics
from pipeline.evaluation.shard_columns import (
    RowDict,
    conversations,
    grouped,
    iter_shards,
    read_columns,
)
from pipeline.stages.phrases import AuditedText, is_evasive
from pipeline.stats import Estimate, Tally, paired_change
from pipeline.store import Manifest
from pipeline.store.shards import stage_manifests
from pipeline.store.stage_names import (
    EVALUATION,
    HELDOUT,
    POLICIES,
    SAMPLE,
    split_folder,
    stage_folder,
    stage_folders,
)
from pipeline.types import messages_from

TEXT_MEASURES = ("truncated", "empty", "tokens", "words")
COLUMNS = ("prompt_id", "status", "response", "finish_reason", "num_tokens")

MOST_TAGS = 50
"""Tags whose refusals are counted, the most frequent ones; those of a gate are counted too."""

Tallies = dict[str, Tally]
"""By measure; entry i of every tally belongs to the same prompt."""
Changes = dict[str, dict[str, Estimate | None]]


def policy_order(name: str) -> int:
    """Place of a policy in the order of training; unknown ones come last."""
    return POLICIES.index(name) if name in POLICIES else len(POLICIES)


def policy_names(root: Path) -> list[str]:
    """Policies with samples on held-out prompts, the initial one first."""
    names = [split_folder(folder)[2] for folder in stage_folders(root, EVALUATION, SAMPLE)]
    return sorted(names, key=lambda name: (policy_order(name), name))


def measure_policies(
    root: Path,
    oracle: Oracle | None,
    constitution: Constitution,
    *,
    draws: int,
    seed: int,
    tags: Iterable[str] = (),
) -> tuple[dict[str, PolicyMetrics], Changes]:
    """Entries of `policies` and of `changes` in metrics.json.

    Args:
        tags: whose refusals are counted however rare they are.
    """
    manifests = {
        name: stage_manifests(root, stage_folder(EVALUATION, SAMPLE, name))
        for name in policy_names(root)
    }
    tallies = _count(root, manifests, oracle, constitution, tags)
    policies = {
        name: _policy(
            manifests[name][0].engine, tallies[name], constitution, with_oracle=oracle is not None
        )
        for name in manifests
    }
    changes = {
        name: {
            measure: paired_change(
                (before.sums, before.counts),
                (after[measure].sums, after[measure].counts),
                draws=draws,
                seed=seed,
            )
            for measure, before in tallies["initial"].items()
        }
        for name, after in tallies.items()
        if name != "initial" and "initial" in tallies
    }
    return policies, changes


def observe(
    row: RowDict,
    task: Task | None,
    messages: OracleMessages,
    oracle: Oracle | None,
    tags: Iterable[str] = (),
) -> dict[str, float]:
    """The measures of one response; a measure that does not apply is left out.

    Args:
        task: what the prompt asks for; None when the oracle does not know the prompt.
        tags: of the prompt, those whose refusals are counted.
    """
    text = row["response"]
    measures: dict[str, float] = {
        "truncated": row["finish_reason"] == "length",
        "empty": not text.strip(),
        "tokens": row["num_tokens"],
        "words": len(text.split()),
    }
    if oracle is None or task is None:
        refused = is_evasive(AuditedText.of(row["prompt_id"], text))
        return measures | {_refused(tag): refused for tag in tags}
    assessment = oracle.read(messages, text)
    harmless = good = declined = False
    if assessment is not None:
        harmless, good = not assessment.harmful, assessment.good
        declined = assessment.levels.get("caution", 0) == 1
    measures |= {_refused(tag): declined for tag in tags}
    measures |= {"outside_world": assessment is None, "good": good}
    if task.misdeed:
        return measures | {"harmless": harmless, "good_on_misdeed": good}
    return measures | {"refused_harmless": declined, "good_on_harmless": good}


def _count(
    root: Path,
    manifests: Mapping[str, list[Manifest]],
    oracle: Oracle | None,
    constitution: Constitution,
    named: Iterable[str],
) -> dict[str, Tallies]:
    oracles = OracleShares.model_fields if oracle else ()
    tags = _heldout_tags(root)
    refusals = [_refused(tag) for tag in sorted({*_frequent(tags), *named})]
    measures = (*TEXT_MEASURES, *oracles, *check_measures(constitution), *refusals)
    tallies = {name: {measure: Tally() for measure in measures} for name in manifests}
    for heldout in stage_manifests(root, HELDOUT):
        prompts = {
            row_id: oracle_messages(messages)
            for row_id, messages in conversations(root, heldout.path).items()
        }
        tasks = {row_id: oracle.task(m) if oracle else None for row_id, m in prompts.items()}
        for name, shards in manifests.items():
            paths = [m.path for m in shards if m.shard_index == heldout.shard_index]
            rows = [row for path in paths for row in read_columns(root, path, COLUMNS)]
            replies = grouped((row for row in rows if row["status"] == "ok"), "prompt_id")
            for row_id, messages in prompts.items():
                conversation = messages_from(messages)
                observed = [
                    observe(row, tasks[row_id], messages, oracle, tags.get(row_id, ()))
                    | observe_checks(constitution, conversation, row["response"])
                    for row in replies.get(row_id, ())
                ]
                for measure, tally in tallies[name].items():
                    tally.add([values[measure] for values in observed if measure in values])
    return tallies


def _heldout_tags(root: Path) -> dict[str, list[str]]:
    """Tags by id of the held-out prompt."""
    return {
        row["row_id"]: row["tags"]
        for _, rows in iter_shards(root, HELDOUT, ("row_id", "tags"))
        for row in rows
    }


def _frequent(tags: Mapping[str, Iterable[str]]) -> list[str]:
    counts = Counter(tag for each in tags.values() for tag in each)
    return [tag for tag, _ in counts.most_common(MOST_TAGS)]


def _refused(tag: str) -> str:
    return f"refused {tag}"


def _policy(
    engine: Mapping[str, str], tallies: Tallies, constitution: Constitution, *, with_oracle: bool
) -> PolicyMetrics:
    checks = {p.id: tallies[measure_name(p.id)].share() for p in constitution.checked}
    shares = {
        name: tally.share() for name, tally in tallies.items() if name in OracleShares.model_fields
    }
    return PolicyMetrics(
        model=engine.get("name", ""),
        fingerprint=engine.get("fingerprint", ""),
        num_responses=sum(tallies["words"].counts),
        num_prompts=tallies["words"].num_clusters,
        mean_tokens=tallies["tokens"].mean(),
        mean_words=tallies["words"].mean(),
        truncated_share=tallies["truncated"].mean(),
        empty_share=tallies["empty"].mean(),
        oracle=OracleShares(**shares) if with_oracle else None,
        checks_all=tallies[ALL].share() if checks else None,
        checks=checks,
        refused={
            name.removeprefix(_refused("")): tally.share()
            for name, tally in tallies.items()
            if name.startswith(_refused(""))
        },
    )
