"""Training curves from the lines of metrics.jsonl, without those whose numbers are missing."""

import math
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipeline.report.charts import Line, line_chart
from pipeline.report.source import TrainingRecord

LOSS, GOOD, BAD = "c-main", "c-good", "c-bad"
PANELS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    ("Loss", (("loss", "loss", LOSS),)),
    ("Reward margin", (("reward_margin", "chosen − rejected", LOSS),)),
    (
        "Log-probability, nats",
        (("logp_chosen", "chosen", GOOD), ("logp_rejected", "rejected", BAD)),
    ),
    ("Rewards", (("reward_chosen", "chosen", GOOD), ("reward_rejected", "rejected", BAD))),
    ("Reward accuracy", (("reward_accuracy", "share of pairs ranked as labeled", LOSS),)),
    ("Reward", (("reward", "mean score of the policy's replies", LOSS),)),
    ("Tokens a reply", (("reply_tokens", "mean length of them", LOSS),)),
)
"""Title, then (key in metrics.jsonl, name in the legend, style) per line."""


@dataclass(frozen=True)
class Panel:
    """One chart with its legend."""

    title: str
    legend: list[tuple[str, str]]
    """(style, name); empty for a single line."""
    svg: Markup


def panels(record: TrainingRecord) -> list[Panel]:
    """The charts of one training job; SFT has a loss only."""
    charts = []
    for title, lines in PANELS:
        rows = [row for row in record.rows if all(_usable(row.get(key)) for key, _, _ in lines)]
        if not rows:
            continue
        xs = [float(row["step"]) for row in rows]
        curves = [
            Line(name, [float(row[key]) for row in rows], style) for key, name, style in lines
        ]
        legend = [(style, name) for _, name, style in lines] if len(lines) > 1 else []
        full = f"{record.title}: {title[:1].lower()}{title[1:]}"
        charts.append(Panel(full, legend, line_chart(full, xs, curves)))
    return charts


def _usable(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
