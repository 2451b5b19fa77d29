"""What labels are worth, in figures: of one judge, over all rows and by principle. Pure.

In:  judgment rows of one prompt after the other, canary rows of one shard after the other
Out: a Figure per measure (`label_observations.py` says what each one is), a finding per threshold

Shares have Wilson intervals for clustered rows, means a bootstrap; the unit is the prompt, or the
shipped canary, which comes again in other shards.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.audits.findings import AuditFinding, Bounds, judged_by_interval, skipped
from pipeline.audits.label_observations import (
    CANARY_FIGURES,
    LABEL_FIGURES,
    MEANINGS,
    RowDict,
    observe_canary,
    observe_label,
)
from pipeline.config.audits import LabelAuditConfig
from pipeline.stats import Estimate, cluster_bootstrap, clustered_share, wilson

FIGURES = (*CANARY_FIGURES, *LABEL_FIGURES)
MEANS = {"swapped": 1.0, "identical": 0.5}
"""Figures that are means of distances, with the greatest distance; the others are shares."""
PROMPTS_OF_A_MEAN = 5
"""A bootstrap of fewer prompts fails a good judge too often, as no draw leaves their range."""
NEED_A_WINNER = ("padded", "longer")
"""Figures that stay where they are when every label is a tie."""
EVERYTHING = ""
"""The scope of all rows."""


@dataclass(frozen=True, slots=True)
class Figure(Estimate):
    """A measure with its interval and what it rests on."""

    clusters: int
    """Prompts, or shipped canaries, behind the rows."""


@dataclass
class Tally:
    """One figure: its sum and its number of observations per cluster."""

    sums: "array[float]" = field(default_factory=lambda: array("d"))
    counts: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, values: Sequence[float]) -> None:
        """Append one cluster."""
        self.sums.append(sum(values))
        self.counts.append(len(values))


@dataclass
class LabelFigures:
    """Running figures of one judge."""

    tie_width: float
    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)
    """By scope and figure."""
    canaries: dict[tuple[str, str], dict[str, list[float]]] = field(default_factory=dict)
    """The same for canaries, values by cluster."""

    def add_prompt(self, rows: Sequence[RowDict], words: Mapping[str, int]) -> None:
        """All judgments of one prompt.

        Args:
            words: number of words by id of the compared responses.
        """
        seen: dict[tuple[str, str], list[float]] = {}
        for row in rows:
            for name, value in observe_label(row, words, self.tie_width).items():
                for scope in _scopes(row):
                    seen.setdefault((scope, name), []).append(float(value))
        for key, values in seen.items():
            self.tallies.setdefault(key, Tally()).add(values)

    def add_canaries(
        self, rows: Sequence[RowDict], before: Mapping[str, float] | None = None
    ) -> None:
        """All canaries of one shard.

        Args:
            before: `raw_label` by id of the judgments that were asked again the other way round.
        """
        found = {
            (row["canary_id"], row["principle_id"]): value
            for row in rows
            if row["canary"] == "known"
            and (value := observe_canary(row, self.tie_width)) is not None
        }
        for row in rows:
            if row["status"] in ("ok", "unparsed"):
                self._add_canary(row, "canary_unparsed", float(row["status"] == "unparsed"))
            value = observe_canary(row, self.tie_width, (before or {}).get(row["canary_id"]))
            # What was not judged right without an instruction does not show what the instruction does;
            # one that was made from a clear label of the shard was judged right there.
            clean = found.get(
                (row["canary_id"], row["principle_id"]), 1.0 if row["prompt_id"] else 0.0
            )
            if value is not None and (row["canary"] != "injected" or clean == 1.0):
                self._add_canary(row, row["canary"], value)

    def _add_canary(self, row: RowDict, name: str, value: float) -> None:
        cluster = row["prompt_id"] or row["canary_id"]
        for scope in _scopes(row):
            self.canaries.setdefault((scope, name), {}).setdefault(cluster, []).append(value)

    @property
    def principles(self) -> list[str]:
        """Ids of the principles that were drawn, sorted."""
        return sorted({scope for scope, _ in (*self.tallies, *self.canaries)} - {EVERYTHING})

    def estimates(self, scope: str, *, draws: int, seed: int) -> dict[str, Figure]:
        """The figures of a scope that have at least one observation."""
        found = {}
        for name in FIGURES:
            tally = self._tally(scope, name)
            if name in MEANS:
                estimate = cluster_bootstrap(
                    tally.sums, tally.counts, draws=draws, seed=seed, most=MEANS[name]
                )
            else:
                estimate = clustered_share(tally.sums, tally.counts)
            if estimate is not None:
                found[name] = Figure(**estimate.as_dict(), clusters=len(tally.counts))
        return found

    def _tally(self, scope: str, name: str) -> Tally:
        if name not in CANARY_FIGURES:
            return self.tallies.get((scope, name), Tally())
        tally = Tally()
        for values in self.canaries.get((scope, name), {}).values():
            tally.add(values)
        return tally


def thresholds(config: LabelAuditConfig) -> dict[str, Bounds]:
    """Bounds by figure; checks that are off are left out."""
    bounds: dict[str, Bounds] = {
        "known": (config.min_known, None),
        "injected": (None, config.max_injected),
        "swapped": (None, config.max_swapped),
        "identical": (None, config.max_identical),
        "padded": (None, config.max_padded),
        "canary_unparsed": (None, config.max_unparsed),
        "unparsed": (None, config.max_unparsed),
        "off_option": (None, config.max_off_option),
        "flip": (None, config.max_flip),
        "slot_share": config.slot_share or (None, None),
        "longer": (None, config.max_longer),
    }
    return {name: pair for name, pair in bounds.items() if pair != (None, None)}


def check_labels(
    figures: Mapping[str, Figure], config: LabelAuditConfig, scope: str = EVERYTHING
) -> list[AuditFinding]:
    """One finding per threshold; a check that could not have failed is skipped, not passed."""
    tie = figures.get("tie")
    all_tied = tie is not None and tie.share == 1.0
    findings = []
    for name, bounds in thresholds(config).items():
        figure = figures.get(name)
        n = figure.n if figure else 0
        if figure is None or (why := too_few(name, figure, config)):
            why = why if figure else f"0 rows, and at least {config.min_rows} are needed"
            findings.append(skipped(name, bounds, n, why, scope=scope))
            continue
        finding = judged_by_interval(name, figure, bounds, scope=scope, detail=MEANINGS[name])
        if finding.status == "passed" and all_tied and name in NEED_A_WINNER:
            why = "every label lies within the tie width of 0.5, so that nothing can win"
            finding = skipped(name, bounds, n, why, scope=scope)
        elif finding.status == "passed" and not can_fail(
            bounds, figure.clusters, MEANS.get(name, 1.0)
        ):
            why = f"over {figure.clusters} prompts or canaries not even the worst judge would fail"
            finding = skipped(name, bounds, n, why, scope=scope)
        findings.append(finding)
    return findings


def too_few(name: str, figure: Figure, config: LabelAuditConfig) -> str:
    """Why a figure rests on too little; empty when it does not."""
    if figure.n < config.min_rows:
        return f"{figure.n} rows, and at least {config.min_rows} are needed"
    needed = max(config.min_prompts, PROMPTS_OF_A_MEAN) if name in MEANS else config.min_prompts
    if figure.clusters < needed:
        return f"{figure.n} rows of {figure.clusters} prompts or canaries, and at least {needed} are needed"
    return ""


def can_fail(bounds: Bounds, clusters: int, most: float = 1.0) -> bool:
    """Whether a figure in [0, most] that is as wrong in every prompt as it can be would be seen to be.

    All of m prompts: Wilson's interval begins at m / (m + z^2), so that 15 prompts, all of them in
    slot A, still may come from a judge that chooses it four times in five.
    """
    low, high = bounds
    return (low is not None and wilson(0, clusters)[1] < low) or (
        high is not None and wilson(clusters, clusters)[0] * most > high
    )


def _scopes(row: RowDict) -> set[str]:
    # A label from follow-ups has no principle: its scope is that of all rows, once.
    return {EVERYTHING, row["principle_id"]}
