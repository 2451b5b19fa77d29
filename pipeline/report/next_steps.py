"""What the run came to, in one word, and what to do next, the most urgent first.

In:  ReportData
Out: a verdict, and steps that follow from the figures alone, each with the command that takes it

Does not: weigh how good a policy is; only the recipe's gate does that.
"""

from dataclasses import dataclass
from typing import Literal

from pipeline.report.audit import audit_failed, ways_out
from pipeline.report.numbers import count_of, percent
from pipeline.report.source import ReportData

MANY_UNPARSED = 0.05
"""Share of the labels without a readable verdict from which a step names it."""


@dataclass(frozen=True)
class Verdict:
    """The word at the top of the page."""

    word: str
    tone: Literal["ok", "bad", "open"]


@dataclass(frozen=True)
class Step:
    """One thing to do."""

    text: str
    command: str = ""


def verdict(data: ReportData) -> Verdict:
    """What became of the run: audit first, then whether it finished, then the gate."""
    if audit_failed(data.audit):
        return Verdict("Labels failed their audit", "bad")
    if not data.run.metrics.exists():
        return Verdict("Not finished", "open")
    gate = data.metrics.gate
    if gate is None:
        return Verdict("Finished, without a gate", "ok")
    return Verdict("Promoted", "ok") if gate.decision == "promoted" else Verdict("Candidate", "bad")


def next_steps(data: ReportData) -> list[Step]:
    """What to do, in order."""
    run, metrics = data.run.run_id, data.metrics
    failed_audit = audit_failed(data.audit)
    ways = ways_out(data.audit) if failed_audit else []
    steps = [Step(f"{way}.", f"rlaif audit {run}") for way in ways]
    if not data.run.metrics.exists() and not failed_audit:
        steps.append(Step("Continue the run; finished work is kept.", f"rlaif resume {run}"))
    if failed := sum(stage.failed for stage in metrics.stages.values()):
        steps.append(Step(f"{count_of(failed, 'row')} failed: read why.", f"rlaif why {run}"))
    labels = metrics.data.labels if metrics.data else None
    if labels and labels.drawn and labels.unparsed / labels.drawn > MANY_UNPARSED:
        share = percent(labels.unparsed / labels.drawn)
        steps.append(Step(f"{share} of verdicts could not be read.", f"rlaif why {run}"))
    for record in data.training:
        for alarm in record.result.alarms if record.result else ():
            steps.append(Step(f"{record.title} raised an alarm: {alarm.message}."))
    if metrics.gate:
        missed = [finding.text for finding in metrics.gate.findings if not finding.holds]
        steps += [Step(f"The gate asks for more: {text}.") for text in missed]
    elif data.final_policy:
        steps.append(Step("Add evaluation.gate to the recipe, which decides what is promoted."))
    if labels and labels.labeled and not failed_audit:
        steps.append(
            Step("Let people label a sample, to measure the judge.", f"rlaif review {run}")
        )
    if (data.run.dataset / "preference.parquet").exists() and not failed_audit:
        command = f"rlaif export {run} --out pairs.jsonl"
        steps.append(Step("Hand the pairs to another trainer.", command))
    return steps
