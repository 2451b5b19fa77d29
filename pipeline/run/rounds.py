"""Iterative training: rounds of sampling, labeling and training, each on new prompts.

In:  a recipe with `rounds: n`
Out: n runs at most, each the parent of the next, as nights are (`nightly.py`): version k of the
     data set holds the rows of the rounds before it, and round k begins with, and has as its
     reference, the policy that the last promoted round made

A round whose policy stays a candidate is the last one, and so is one that no figure of its gate
calls better than the round before.
"""

from collections.abc import Callable
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.evaluation.decision import GateResult
from pipeline.run.context import PROMOTED
from pipeline.run.nightly import NightlyPlan, nightly_runs, plan_nightly
from pipeline.store import RunDir, read_json

WIN_RATE = "win_rate.min_lower"
SHARE, GAINS = ".min_lower", (".min_gain", ".min_gain_lower")
"""How the rules of a gate end that have a figure which can rise; the others are limits."""


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
        if not rises(*(_gate(run) for run in ended[-2:])):
            return NightlyPlan(
                None,
                f"round {len(ended)} (run {last.run_id}) was promoted, but no figure of its gate "
                "rose, so it was the last",
            )
    plan = plan_nightly(str(recipe))
    number = len(ended) + 1
    return NightlyPlan(plan.run, f"round {number} of {config.rounds}: {plan.message}")


def rises(*gates: GateResult | None) -> bool:
    """Whether the last of one or two rounds made the policy better, by any figure of its gate.

    A win rate and a gain compare with the policy that the round began with: they rise above 0.5
    and 0. A share has to be above that of the round before. Without such a figure, the promotion
    itself says that it did.
    """
    last, before = gates[-1], gates[0] if len(gates) > 1 else None
    earlier = {f.rule: f.value for f in before.findings} if before else {}
    better = []
    for finding in last.findings if last else ():
        if finding.rule == WIN_RATE:
            level: float | None = 0.5
        elif finding.rule.endswith(GAINS):
            level = 0.0
        elif finding.rule.endswith(SHARE):
            level = earlier.get(finding.rule)
        else:
            continue
        better.append(level is None or finding.value is None or finding.value > level)
    return any(better) or not better


def _gate(run: RunDir) -> GateResult | None:
    stored = (read_json(run.metrics) or {}).get("gate")
    return GateResult.model_validate(stored) if stored else None


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
