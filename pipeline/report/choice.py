"""Policies beside each other, as a person chooses one: what each does well, and what it costs.

In:  ReportData
Out: a `Choice` per policy, and one table of them, for the report of a run and the page of a sweep
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.numbers import MISSING, number, policy_class, policy_label, spelled
from pipeline.report.source import ReportData
from pipeline.report.tables import Cell, Row, Table
from pipeline.stats import Estimate

SHARES = {
    "harmless": "harmless replies to misdeeds",
    "good": "good answers",
    "good_on_harmless": "helpful replies",
    "checks_all": "replies that hold every check",
    "win_rate": "win rate vs initial",
}
"""What speaks for a policy, and the columns of the table."""
JOBS = {"sl_cai": "SFT", "tuned": "Preference"}
"""The training that made a policy, by the title of its record."""
NOTE = (
    "Shares with their 95 % intervals, words with the interval of their change from the initial "
    "policy, and the divergence from the model that the training began with."
)


@dataclass(frozen=True)
class Choice:
    """One policy on the held-out prompts."""

    policy: str
    """Its name in metrics.json."""
    fingerprint: str
    """Of its model."""
    method: str = ""
    """Of the training that made it; empty without one."""
    shares: dict[str, Estimate] | None = None
    """By name in `SHARES`: those that were measured."""
    words: float | None = None
    """Words per reply."""
    words_change: Estimate | None = None
    """Against the initial policy on the same prompts."""
    divergence: float | None = None
    """From the model before its training, in nats per token; None where that is no number."""
    alarms: tuple[str, ...] = ()
    """Of its training."""
    replies: int = 0
    """Replies that were measured."""

    @property
    def title(self) -> str:
        """`Tuned, rft`."""
        return ", ".join(filter(None, (policy_label(self.policy), self.method)))


def choices(data: ReportData) -> list[Choice]:
    """The policies of a run, in the order of training."""
    results = {record.title: record.result for record in data.training}
    policies = []
    for name, entry in data.metrics.policies.items():
        shares = (entry.oracle.by_name() if entry.oracle else {}) | {"checks_all": entry.checks_all}
        win = data.win_rate(name)
        if win and win.win_rate is not None and win.low is not None and win.high is not None:
            shares["win_rate"] = Estimate(win.win_rate, win.low, win.high, win.num_comparisons)
        result = results.get(JOBS.get(name, ""))
        moved = result.divergence if result else None
        policies.append(
            Choice(
                name,
                entry.fingerprint,
                result.method if result else "",
                {each: share for each in SHARES if (share := shares.get(each)) is not None},
                entry.mean_words,
                data.metrics.changes.get(name, {}).get("words"),
                moved if moved is not None and math.isfinite(moved) else None,
                tuple(alarm.name for alarm in result.alarms) if result else (),
                entry.num_responses,
            )
        )
    return policies


def choice_table(data: ReportData) -> Table:
    """One row per policy of a run; empty with fewer than two."""
    policies = choices(data)
    rows: list[Row] = [
        {
            "policy": Cell(each.title, style=f"swatch {policy_class(each.policy)}"),
            **choice_cells(each, policies),
        }
        for each in policies
    ]
    return Table(rows if len(rows) > 1 else [], "Policies beside each other", NOTE)


def choice_cells(choice: Choice | None, others: Sequence[Choice]) -> dict[str, str]:
    """The figures of a policy by column; dashes for None.

    Args:
        others: the policies of the table, whose shares have a column.
    """
    own = choice or Choice("", "")
    change, shares = own.words_change, own.shares or {}
    drift = f" ({number(change.low, 1)} to {number(change.high, 1)})" if change else ""
    return {
        **{
            noun: spelled(shares.get(name))
            for name, noun in SHARES.items()
            if any(name in (other.shares or {}) for other in others)
        },
        "words per reply": number(own.words, 1) + drift,
        "nats a token": number(own.divergence, 3),
        "alarms": ", ".join(own.alarms) or ("none" if own.method else MISSING),
        "replies": number(own.replies) if choice else MISSING,
    }
