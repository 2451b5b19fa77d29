"""What labels are worth, in figures: of one judge, over all rows and by principle. Pure.

In:  judgment rows and canary rows of one shard after the other
Out: a Figure per line of the table `FIGURES`, a finding per threshold

Who wins (known, injected, padded, longer, tie) is read from the label. How far the judge moves
(swapped, identical, order_disagreement, slot_share) is read from its probabilities before the clamp
and the calibration: clamped to [0.4, 0.6], no answer is further than 0.1 from 0.5, and every judge
would pass.

Shares have Wilson intervals for clustered rows, means a bootstrap; the cluster is the prompt, or
the shipped canary, which is asked again in other shards.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.audits.findings import AuditFinding, Bounds, judged, skipped
from pipeline.config.audits import LabelAuditConfig
from pipeline.soft_labels import is_tie, outcome, swap_average
from pipeline.stats import Estimate, Tally, wilson

RowDict = Mapping[str, Any]
EVERYTHING = ""
"""The scope of all rows; other scopes are ids of principles."""
UNDECIDED = 0.1
"""An order this close to 0.5 prefers no slot: of two equally good responses most models like one
slot a little better, which both orders cancel and which is not an error of the label."""
LEAST_MASS = 0.5
"""A judge that gives its two options less than this together would have answered something else."""
PROMPTS_OF_A_MEAN = 5
"""A bootstrap of fewer prompts fails a good judge too often, as no draw leaves their range."""


@dataclass(frozen=True)
class FigureKind:
    """One line of the table of figures."""

    title: str
    """Head of its column."""
    meaning: str
    bounds: Callable[[LabelAuditConfig], Bounds]
    is_canary: bool = False
    """Whether it is read from canaries."""
    greatest: float | None = None
    """Of a mean of distances, the greatest distance; None for a share."""
    needs_winner: bool = False
    """Whether it says nothing when every label is a tie."""


FIGURES = {
    "known": FigureKind(
        "Known",
        "known answers found; an unreadable verdict counts as not found",
        lambda config: (config.min_known, None),
        is_canary=True,
    ),
    "injected": FigureKind(
        "Injected",
        "worse responses that win by an instruction to the judge",
        lambda config: (None, config.max_injected),
        is_canary=True,
    ),
    "swapped": FigureKind(
        "Swapped",
        "mean change of the judge's mean of both orders when first and second are exchanged",
        lambda config: (None, config.max_swapped),
        is_canary=True,
        greatest=1.0,
    ),
    "identical": FigureKind(
        "Slot bias",
        "slot bias: mean distance from 0.5 of one order on two equal texts",
        lambda config: (None, config.max_identical),
        is_canary=True,
        greatest=0.5,
    ),
    "padded": FigureKind(
        "Padded",
        "responses that win by a sentence that says nothing",
        lambda config: (None, config.max_padded),
        is_canary=True,
        needs_winner=True,
    ),
    "checked": FigureKind(
        "Checked",
        "comparisons that a check decides, judged as it does; an unreadable verdict counts as not",
        lambda config: (config.min_checked, None),
        is_canary=True,
    ),
    "canary_unparsed": FigureKind(
        "Unread canaries",
        "canaries whose verdict could not be read",
        lambda config: (None, config.max_unparsed),
        is_canary=True,
    ),
    "unparsed": FigureKind(
        "Unparsed", "verdicts that could not be read", lambda config: (None, config.max_unparsed)
    ),
    "off_option": FigureKind(
        "Off option",
        "calls in which the two options have less than half of the probability",
        lambda config: (None, config.max_off_option),
    ),
    "order_disagreement": FigureKind(
        "Orders disagree",
        "the two orders clearly prefer different responses",
        lambda config: (None, config.max_order_disagreement),
    ),
    "slot_share": FigureKind(
        "Slot A",
        "calls in which slot A clearly wins, undecided ones half",
        lambda config: config.slot_share or (None, None),
    ),
    "tie": FigureKind("Ties", "labels within the tie width of 0.5", lambda config: (None, None)),
    "longer": FigureKind(
        "Longer wins",
        "comparisons that the response with more words wins; ties count half",
        lambda config: (None, config.max_longer),
        needs_winner=True,
    ),
}
"""Every figure of a judge, in the order of audit.json and of the report."""


def observe_label(row: RowDict, words: Mapping[str, int], tie_width: float) -> dict[str, float]:
    """The figures of one judgment, each in [0, 1]; those that do not apply are left out.

    Args:
        words: number of words by id of the compared responses.
    """
    if row["status"] not in ("ok", "unparsed"):
        return {}
    values: dict[str, float] = {}
    if row.get("method") != "check":
        values["unparsed"] = row["status"] == "unparsed"
    if row.get("method") == "judge":
        # Scores and follow-ups look at one response at a time: there are no options and no slots.
        values["off_option"] = off_option(row["option_logprobs"])
    label = row["prob_first"]
    if row["status"] != "ok" or label is None:
        return values
    values["tie"] = is_tie(label, tie_width)
    first, second = words.get(row["first_id"]), words.get(row["second_id"])
    if first is not None and second is not None and first != second:
        first_wins = outcome(label, tie_width)
        values["longer"] = first_wins if first > second else 1.0 - first_wins
    if row["prob_forward"] is None or row["prob_swapped"] is None:
        return values
    width = max(tie_width, UNDECIDED)
    slot_a = [outcome(row[name], width) for name in ("prob_forward", "prob_swapped")]
    values["slot_share"] = sum(slot_a) / 2
    # The same slot both times, whichever it is, means different responses.
    values["order_disagreement"] = slot_a[0] == slot_a[1] != 0.5
    return values


def off_option(logprobs: Sequence[float | None] | None) -> float:
    """Share of both calls in which exp(lpA) + exp(lpB) is below 0.5.

    Args:
        logprobs: forward A, forward B, swapped A, swapped B (nats); NaN or None for an option that
            was not reported, empty for an answer that could not be scored at all.

    Normalized over the two options, a judge that would begin with "The" or with a token for
    thinking has a label like any other, made of its unlikely second thoughts.
    """
    masses = [0.0 if v is None or math.isnan(v) else math.exp(v) for v in logprobs or ()]
    calls = (masses[:2], masses[2:])
    return sum(sum(call) < LEAST_MASS for call in calls) / 2


def observe_canary(row: RowDict, tie_width: float, before: float | None = None) -> float | None:
    """The figure of one canary, in [0, 1]; None when it says nothing.

    Args:
        before: for `swapped`, `raw_label` of the judgment that is asked again.
    """
    label, kind = row["prob_first"], row["canary"]
    if row["status"] != "ok" or label is None:
        # The answer to a known question is right, or it was not given.
        asked = kind in ("known", "checked") and row["status"] == "unparsed"
        return 0.0 if asked else None
    if kind == "swapped":
        return None if before is None else abs(raw_label(row) - (1.0 - before))
    if kind == "identical":
        return sum(abs(float(row[name]) - 0.5) for name in ("prob_forward", "prob_swapped")) / 2
    first_wins = outcome(label, tie_width)
    if kind == "padded":
        return float(first_wins == 0.0)
    right = first_wins if row["expected"] == 1.0 else 1.0 - first_wins
    return float(right == 0.0) if kind == "injected" else right


def raw_label(row: RowDict) -> float:
    """P(first is preferred), mean of both orders, before the clamp and the calibration."""
    return swap_average(row["prob_forward"], row["prob_swapped"])[0]


@dataclass(frozen=True, slots=True)
class Figure(Estimate):
    """A measure with its interval and what it rests on."""

    clusters: int
    """Prompts, or shipped canaries, behind the rows."""


@dataclass
class LabelFigures:
    """Running figures of one judge."""

    tie_width: float
    totals: dict[tuple[str, str], dict[str, tuple[float, int]]] = field(default_factory=dict)
    """By scope and figure, then by cluster: sum and number of the observations."""

    def add_labels(self, rows: Iterable[RowDict], words: Mapping[str, int]) -> None:
        """Count judgments.

        Args:
            words: number of words by id of the compared responses.
        """
        for row in rows:
            for name, value in observe_label(row, words, self.tie_width).items():
                self._add(row, row["prompt_id"], name, float(value))

    def add_canaries(
        self, rows: Sequence[RowDict], before: Mapping[str, float] | None = None
    ) -> None:
        """Count all canaries of one shard.

        Args:
            before: `raw_label` by id of the judgments that were asked again with the responses
                exchanged.
        """
        known = {
            (row["canary_id"], row["principle_id"]): observe_canary(row, self.tie_width)
            for row in rows
            if row["canary"] == "known"
        }
        for row in rows:
            cluster = row["prompt_id"] or row["canary_id"]
            if row["status"] in ("ok", "unparsed"):
                unread = float(row["status"] == "unparsed")
                self._add(row, cluster, "canary_unparsed", unread)
            value = observe_canary(row, self.tie_width, (before or {}).get(row["canary_id"]))
            # An instruction shows something only where the judge was right without it, as it was
            # where the canary was made from a clear label of the shard.
            key, unknown = (row["canary_id"], row["principle_id"]), float(bool(row["prompt_id"]))
            was_right = known.get(key, unknown) == 1.0
            if value is not None and (row["canary"] != "injected" or was_right):
                self._add(row, cluster, row["canary"], value)

    def _add(self, row: RowDict, cluster: str, name: str, value: float) -> None:
        # A label from follow-ups has no principle: its scope is that of all rows, once.
        for scope in {EVERYTHING, row["principle_id"]}:
            clusters = self.totals.setdefault((scope, name), {})
            total, count = clusters.get(cluster, (0.0, 0))
            clusters[cluster] = (total + value, count + 1)

    @property
    def principles(self) -> list[str]:
        """Ids of the principles that were drawn, sorted."""
        return sorted({scope for scope, _ in self.totals} - {EVERYTHING})

    def estimates(self, scope: str, *, draws: int, seed: int) -> dict[str, Figure]:
        """The figures of a scope that have at least one observation."""
        figures = {}
        for name, kind in FIGURES.items():
            totals = self.totals.get((scope, name), {}).values()
            tally = Tally([total for total, _ in totals], [count for _, count in totals])
            if kind.greatest is None:
                estimate = tally.share()
            else:
                estimate = tally.bootstrap(draws=draws, seed=seed, most=kind.greatest)
            if estimate is not None:
                figures[name] = Figure(**asdict(estimate), clusters=tally.num_clusters)
        return figures


def check_labels(
    figures: Mapping[str, Figure], config: LabelAuditConfig, scope: str = EVERYTHING
) -> list[AuditFinding]:
    """One finding per threshold; a check that could not have failed is skipped, not passed."""
    return [
        _check(name, bounds, figures, config, scope)
        for name, kind in FIGURES.items()
        if (bounds := kind.bounds(config)) != (None, None)
    ]


def _check(
    name: str, bounds: Bounds, figures: Mapping[str, Figure], config: LabelAuditConfig, scope: str
) -> AuditFinding:
    kind, figure, tie = FIGURES[name], figures.get(name), figures.get("tie")
    n, clusters = (figure.n, figure.clusters) if figure else (0, 0)
    least = max(config.min_prompts, 0 if kind.greatest is None else PROMPTS_OF_A_MEAN)
    if figure is None or n < config.min_rows:
        why = f"{n} rows, and at least {config.min_rows} are needed"
    elif clusters < least:
        why = f"{n} rows of {clusters} prompts or canaries, and at least {least} are needed"
    else:
        interval = (figure.low, figure.high)
        finding = judged(
            name, figure.share, bounds, n, interval=interval, detail=kind.meaning, scope=scope
        )
        if finding.status == "passed" and kind.needs_winner and tie is not None and tie.share == 1:
            why = "every label lies within the tie width of 0.5, so that nothing can win"
        elif finding.status == "passed" and not can_fail(bounds, clusters, kind.greatest or 1.0):
            why = f"over {clusters} prompts or canaries not even the worst judge would fail"
        else:
            return finding
    return skipped(name, bounds, n, why, scope=scope)


def can_fail(bounds: Bounds, clusters: int, most: float = 1.0) -> bool:
    """Whether a figure in [0, most] that is as wrong as it can be in every prompt would fail.

    All of m prompts: Wilson's interval begins at m / (m + z^2), so that 15 prompts, all of them in
    slot A, still may come from a judge that chooses it four times in five.
    """
    low, high = bounds
    return (low is not None and wilson(0, clusters)[1] < low) or (
        high is not None and wilson(clusters, clusters)[0] * most > high
    )
