"""A run that makes a given number of pairs: how many prompts it draws, and when it is done.

In:  prompts.target_pairs, the pairs that are kept so far
Out: the size of the next draw; a line that says how many of the ordered pairs there are, and why
     some are missing

A first draw of the fewest prompts that could do shows how many pairs a prompt gives; the next draw
follows from that.
"""

import math
from collections import Counter

from pipeline.config import RunConfig
from pipeline.store import RunDir
from pipeline.store.shards import iter_manifests
from pipeline.store.stage_names import PAIRS

SPARE = 1.1
"""A draw takes a tenth more prompts than the pairs so far suggest; pairs beyond the target are
left out of the data set."""


def most_pairs(config: RunConfig) -> int:
    """Pairs that a prompt gives if none is dropped."""
    names = ("", *config.policies.named)
    samples = sum(config.samples_of(name).num_samples for name in names)
    chains = config.supervised.sample.num_samples
    return {
        "samples": math.comb(samples, 2),
        "best_vs_worst": 1,
        "revision_vs_initial": chains,
        "all": math.comb(samples, 2) + chains,
        "delta": config.samples_of(config.delta_sides[0]).num_samples,
    }[config.preference.comparisons]


def first_draw(config: RunConfig) -> int | None:
    """Prompts that a run begins with: all that `limit` allows, or the fewest that could do."""
    target, limit = config.prompts.target_pairs, config.prompts.limit
    if target is None:
        return limit
    return min(math.ceil(target / most_pairs(config)), limit or target)


def next_draw(target: int, kept: int, prompts: int) -> int:
    """Further prompts to draw, when this number of prompts gave this number of pairs.

    (target - kept) / (kept / prompts), and a tenth more; but at most as many as before, since a few
    prompts say little of the others.
    """
    return min(prompts, math.ceil(SPARE * (target - kept) * prompts / max(kept, 0.5)))


def count_kept(run: RunDir) -> int:
    """Pairs of a run that are kept so far."""
    return sum(manifest.counts.ok for manifest in iter_manifests(run.root, PAIRS))


def describe_target(run: RunDir, target: int, kept: int, why: str) -> str:
    """`500 of 500 pairs`, or how many are missing and why, with what became of the others."""
    line = f"{min(kept, target):,} of {target:,} pairs"
    if kept >= target:
        return line
    reasons: Counter[str] = Counter()
    for manifest in iter_manifests(run.root, PAIRS):
        reasons.update(manifest.reasons)
    lost = ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common(3))
    return f"{line}: {target - kept:,} are missing, since {why}" + (f" ({lost})" if lost else "")
