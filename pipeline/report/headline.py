"""What got better and what got worse, in sentences that follow from the numbers alone.

In:  ReportData
Out: a headline of two sentences, and the figures on the cards

A change counts as clear when its 95 % interval does not contain zero; only then does a sentence
say "more" or "fewer". Everything else is called unclear, never equal.
"""

from dataclasses import dataclass

from pipeline.report.audit import audit_failed, audit_verdict
from pipeline.report.costs import run_cost
from pipeline.report.numbers import (
    change_range,
    count_of,
    joined,
    number,
    percent,
    percent_range,
    percent_step,
    policy_label,
)
from pipeline.report.source import ReportData
from pipeline.stats import Estimate
from pipeline.store.stage_names import REVISE, split_folder

MEASURES = {
    "checks_all": ("replies that hold every check", 1),
    "harmless": ("harmless replies to misdeeds", 1),
    "good": ("good answers", 1),
    "refused_harmless": ("refusals of harmless requests", -1),
    "outside_world": ("texts outside the known world", -1),
    "truncated": ("replies cut at the token limit", -1),
    "empty": ("empty replies", -1),
}
"""Name of a share, and whether more of it is better (1) or worse (-1)."""

CARDS = {
    "checks_all": "Replies that hold every check",
    "harmless": "Harmless replies to misdeeds",
    "good": "Good answers",
}
"""Shares with a card, and its title."""


@dataclass(frozen=True)
class Headline:
    """The first thing on the page."""

    lead: str
    detail: str = ""


@dataclass(frozen=True)
class Card:
    """One figure."""

    title: str
    value: str
    note: str
    tone: str = ""
    """`better`, `worse` or empty."""


def headline(data: ReportData) -> Headline:
    """Two sentences that are true whatever the numbers say. A failed audit comes first."""
    final = data.final_policy
    if audit_failed(data.audit):
        failed = audit_verdict(data.audit).removeprefix("Failed: ")
        return Headline(f"The labels failed their audit: {failed}", _about_data(data))
    if not data.metrics.policies:
        return Headline(_about_data(data), "No policy has been evaluated.")
    if final is None:
        return Headline(_about_data(data), "One policy was evaluated, so nothing can be compared.")
    gate = data.metrics.gate.describe() if data.metrics.gate else ""
    judged = _about_win_rate(data, final)
    changed = _about_changes(data, final)
    length = "" if data.has_oracle else _about_length(data, final)
    if data.has_oracle or data.metrics.policies[final].checks_all or not judged:
        return Headline(changed, " ".join(filter(None, [gate, judged, length])))
    return Headline(judged, " ".join(filter(None, [gate, changed, length])))


def cards(data: ReportData) -> list[Card]:
    """Win rate, shares before and after, label accuracy, pairs kept; only those that are known."""
    final, parts = data.final_policy, list[Card | None]()
    if final:
        parts += [_win_card(data, final)]
        parts += [_share_card(data, final, name) for name in CARDS]
        parts += [] if data.has_oracle else [_length_card(data, final)]
    parts += [_accuracy_card(data), _pairs_card(data)]
    parts += [] if data.has_oracle else [_consistency_card(data)]
    return [card for card in parts if card]


def headline_numbers(data: ReportData) -> list[tuple[str, str]]:
    """The cards, the final policy's texts outside the known world and the decision of the gate, as
    name and value.
    """
    numbers = [
        (card.title, f"{card.value} ({card.note})" if card.note else card.value)
        for card in cards(data)
    ]
    final = data.final_policy
    oracle = data.metrics.policies[final].oracle if final else None
    if final and oracle and (outside := oracle.outside_world):
        value = f"{percent(outside.share)} ({percent_range(outside.low, outside.high)})"
        numbers.append((f"Outside the known world, {policy_label(final).lower()}", value))
    if data.metrics.gate:
        numbers.append(("Gate", data.metrics.gate.describe()))
    numbers += [("Pairs ordered", target)] if (target := data.info.get("target")) else []
    numbers += run_cost(data)
    return numbers


def tone_of(name: str, change: Estimate | None) -> str:
    """`better` or `worse` when the change is clear, else empty."""
    if not change or name not in MEASURES or change.low <= 0 <= change.high:
        return ""
    return "better" if (change.low > 0) == (MEASURES[name][1] > 0) else "worse"


def _share(data: ReportData, policy: str, name: str) -> float | None:
    entry = data.metrics.policies[policy]
    shares = entry.oracle.by_name() if entry.oracle else {}
    shares["checks_all"] = entry.checks_all
    text_shares = {"truncated": entry.truncated_share, "empty": entry.empty_share}
    return share.share if (share := shares.get(name)) else text_shares.get(name)


def _about_changes(data: ReportData, final: str) -> str:
    parts: dict[str, list[str]] = {"better": [], "worse": []}
    for name, (noun, _) in MEASURES.items():
        change = data.changes.get(name)
        if change and (tone := tone_of(name, change)):
            step = percent_step(_share(data, "initial", name), _share(data, final, name))
            word = "more" if change.low > 0 else "fewer"
            parts[tone].append(f"{word} {noun} ({step}, {change_range(change)})")
    policy = _the_policy(final)
    better, worse = joined(parts["better"]), joined(parts["worse"])
    if better and worse:
        return f"Better: {policy} gives {better}. Worse: {worse}."
    if better or worse:
        other = "worse" if better else "better"
        return f"T{policy[1:]} gives {better or worse}; no measured share got clearly {other}."
    return f"No measured share changed clearly from the initial policy to {policy}."


def _about_win_rate(data: ReportData, final: str) -> str:
    entry = data.win_rate()
    if entry is None or entry.low is None or entry.high is None:
        return ""
    policy, rate = _the_policy(final), percent(entry.win_rate)
    own = data.metrics.judge
    judge = f"The judge {own.describe()}," if own else "The judge"
    interval = f"(95 % interval {percent_range(entry.low, entry.high)})"
    if entry.low > 0.5:
        return (
            f"{judge} prefers {policy} to the initial one: it wins {rate} of comparisons "
            f"{interval}."
        )
    if entry.high < 0.5:
        return (
            f"{judge} prefers the initial policy: {policy} wins only {rate} of comparisons "
            f"{interval}."
        )
    return (
        f"{judge} sees no clear difference between {policy} and the initial one: "
        f"win rate {rate} {interval}."
    )


def _about_length(data: ReportData, final: str) -> str:
    change = data.changes.get("words")
    if not change or change.low <= 0 <= change.high:
        return ""
    word = "longer" if change.low > 0 else "shorter"
    return f"Its replies are {word}: {_words(data, final, 1)} words on average."


def _about_data(data: ReportData) -> str:
    summary = data.metrics.data
    if summary and summary.pairs:
        comparisons = count_of(summary.pairs, "comparison")
        return f"{summary.kept:,} of {comparisons} became preference pairs."
    stages = data.metrics.stages.items()
    revisions = sum(stage.ok for name, stage in stages if split_folder(name)[1] == REVISE)
    if revisions:
        return f"The run made {count_of(revisions, 'revision')} and no preference pairs yet."
    return "This run has no results yet."


def _the_policy(name: str) -> str:
    return f"the {policy_label(name)} policy".replace("Tuned", "tuned")


def _words(data: ReportData, final: str, digits: int = 0) -> str:
    before, after = (data.metrics.policies[name].mean_words for name in ("initial", final))
    return f"{number(before, digits)} → {number(after, digits)}"


def _win_card(data: ReportData, final: str) -> Card | None:
    entry = data.win_rate()
    if entry is None or entry.low is None or entry.high is None:
        return None
    tone = "better" if entry.low > 0.5 else "worse" if entry.high < 0.5 else ""
    name = policy_label(final).replace("Tuned", "tuned")
    note = f"{percent_range(entry.low, entry.high)}, n = {number(entry.num_comparisons)}"
    return Card(f"Win rate, {name} vs initial", percent(entry.win_rate), note, tone)


def _share_card(data: ReportData, final: str, name: str) -> Card | None:
    before, after = _share(data, "initial", name), _share(data, final, name)
    if before is None or after is None:
        return None
    change = data.changes.get(name)
    note = change_range(change) if change else ""
    return Card(CARDS[name], percent_step(before, after), note, tone_of(name, change))


def _length_card(data: ReportData, final: str) -> Card:
    return Card("Words per reply", _words(data, final), "mean, initial → final")


def _accuracy_card(data: ReportData) -> Card | None:
    labels = data.metrics.labels
    if not labels or not labels.accuracy_kept or not labels.accuracy_raw:
        return None
    kept = labels.accuracy_kept
    note = (
        f"{percent_range(kept.low, kept.high)}, n = {number(kept.n)}; all labels "
        f"{percent(labels.accuracy_raw.share)}"
    )
    return Card("Label accuracy, kept pairs", percent(kept.share), note)


def _pairs_card(data: ReportData) -> Card | None:
    summary = data.metrics.data
    if not summary or not summary.pairs:
        return None
    note = f"{percent(summary.kept / summary.pairs)} of {count_of(summary.pairs, 'comparison')}"
    return Card("Preference pairs kept", f"{summary.kept:,}", note)


def _consistency_card(data: ReportData) -> Card | None:
    share = data.metrics.data.labels.position_consistency if data.metrics.data else None
    if share is None:
        return None
    return Card("Position consistency", percent(share), "labels that survive swapping the slots")
