"""Iterative training: rounds of sampling, labeling and training, each on new prompts.

In:  a recipe with `rounds: n`
Out: n runs at most, each the parent of the next, as nights are (`nightly.py`): version k of the
     data set holds the rows of the rounds before it, and round k begins with, and has as its
     reference, the policy that the last promoted round made

A round whose policy stays a candidate is the last one: the figures of its gate are about the change
against the policy that it began with, so they no longer rise.
"""

from collections.abc import Callable
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.run.context import PROMOTED
from pipeline.run.nightly import NightlyPlan, nightly_runs, plan_nightly
from pipeline.store import RunDir


def next_round(recipe: Path, config: RunConfig) -> NightlyPlan:
    """The next round, a stopped one first; without a run when there is nothing more to do.

    Raises:
        UserError, AuditError: see `plan_nightly`.
    """
    rounds = nightly_runs(config.name)
    ended = [run for run in rounds if run.info().get("status") == "finished"]
    if rounds and len(ended) == len(rounds):
        last = ended[-1]
        if last.info().get("gate") != PROMOTED:
            return NightlyPlan(
                None,
                f"round {len(ended)} (run {last.run_id}) made no better policy, so it was the last",
            )
        if len(ended) >= config.rounds:
            return NightlyPlan(None, f"all {len(ended)} rounds are done; the last is {last.run_id}")
    plan = plan_nightly(str(recipe))
    number = len(ended) + 1
    return NightlyPlan(plan.run, f"round {number} of {config.rounds}: {plan.message}")


def run_rounds(
    recipe: Path, config: RunConfig, take: Callable[[RunDir], None], say: Callable[[str], None]
) -> None:
    """Take round after round through its phases.

    Args:
        take: takes a run through its phases.
        say: gets one line per round, and one at the end.
    """
    while (plan := next_round(recipe, config)).run is not None:
        say(plan.message)
        take(plan.run)
    say(plan.message)
