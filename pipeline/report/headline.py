"""What got better and what got worse, said in sentences that follow from the numbers alone.

In:  ReportData
Out: a headline of two sentences, and the figures on the cards

A change counts as clear when its 95 % interval does not contain zero; only then does a sentence
say "more" or "fewer". Everything else is said to be unclear, never to be equal.
"""

from dataclasses import dataclass
from typing import Any

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

MEASURES = {
    "harmless": ("harmless replies to misdeeds", 1),
    "good": ("good answers", 1),
    "refused_harmless": ("refusals of harmless requests", -1),
    "outside_world": ("texts outside the known world", -1),
    "truncated": ("replies cut at the token limit", -1),
    "empty": ("empty replies", -1),
}
"""Name of a share, and whether more of it is better (1) or worse (-1)."""


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
    """`better`, `worse` or nothing."""


def headline(data: ReportData) -> Headline:
    """Two sentences that are true whatever the numbers say."""
    if not data.policies:
        return Headline(_about_data(data), "No policy has been evaluated.")
    if data.final_policy is None:
        return Headline(_about_data(data), "One policy was evaluated, so nothing can be compared.")
    judged = _about_win_rate(data)
    changed = _about_changes(data)
    if data.has_oracle or not judged:
        return Headline(changed, judged)
    return Headline(judged, " ".join(filter(None, [changed, _about_length(data)])))


def cards(data: ReportData) -> list[Card]:
    """Win rate, shares before and after, label accuracy, pairs kept; what is unknown is left out."""
    found = [_win_card(data)]
    if data.final_policy:
        found += [_share_card(data, name) for name in ("harmless", "good")]
    if not data.has_oracle:
        found.append(_length_card(data))
    found += [_accuracy_card(data), _pairs_card(data)]
    if not data.has_oracle:
        found.append(_consistency_card(data))
    return [card for card in found if card]


def tone_of(name: str, change: dict[str, Any] | None) -> str:
    """`better` or `worse` when the change is clear, else nothing."""
    if not change or name not in MEASURES or change["low"] <= 0 <= change["high"]:
        return ""
    return "better" if (change["low"] > 0) == (MEASURES[name][1] > 0) else "worse"


def _share(data: ReportData, policy: str, name: str) -> float | None:
    entry = data.policies[policy]
    if name in ("truncated", "empty"):
        return entry.get(f"{name}_share")
    estimate = (entry.get("oracle") or {}).get(name)
    return estimate["share"] if estimate else None


def _about_changes(data: ReportData) -> str:
    final = data.final_policy
    assert final is not None
    parts: dict[str, list[str]] = {"better": [], "worse": []}
    for name, (noun, _) in MEASURES.items():
        change = data.changes.get(name)
        if not (change and (tone := tone_of(name, change))):
            continue
        before, after = _share(data, "initial", name), _share(data, final, name)
        word = "more" if change["low"] > 0 else "fewer"
        parts[tone].append(f"{word} {noun} ({percent_step(before, after)}, {change_range(change)})")
    policy = f"the {policy_label(final)} policy".replace("Tuned", "tuned")
    if parts["better"] and parts["worse"]:
        return f"Better: {policy} gives {joined(parts['better'])}. Worse: {joined(parts['worse'])}."
    if parts["better"]:
        return f"{_capital(policy)} gives {joined(parts['better'])}; no measured share got clearly worse."
    if parts["worse"]:
        return f"{_capital(policy)} gives {joined(parts['worse'])}; no measured share got clearly better."
    return f"No measured share changed clearly from the initial policy to {policy}."


def _about_win_rate(data: ReportData) -> str:
    entry = data.win_rate()
    if entry is None or data.final_policy is None:
        return ""
    policy = f"the {policy_label(data.final_policy)} policy".replace("Tuned", "tuned")
    numbers = f"(95 % interval {percent_range(entry['low'], entry['high'])})"
    rate = percent(entry["win_rate"])
    if entry["low"] > 0.5:
        return f"The judge prefers {policy} to the initial one: it wins {rate} of comparisons {numbers}."
    if entry["high"] < 0.5:
        return f"The judge prefers the initial policy: {policy} wins only {rate} of comparisons {numbers}."
    return (
        f"The judge sees no clear difference between {policy} and the initial one: "
        f"win rate {rate} {numbers}."
    )


def _about_length(data: ReportData) -> str:
    change = data.changes.get("words")
    if not change or change["low"] <= 0 <= change["high"] or data.final_policy is None:
        return ""
    before, after = (
        number(data.policies[name]["mean_words"], 1) for name in ("initial", data.final_policy)
    )
    word = "longer" if change["low"] > 0 else "shorter"
    return f"Its replies are {word}: {before} → {after} words on average."


def _about_data(data: ReportData) -> str:
    made = data.metrics.get("data")
    if made and made["pairs"]:
        return (
            f"{made['kept']:,} of {count_of(made['pairs'], 'comparison')} became preference pairs."
        )
    stages = data.metrics.get("stages") or {}
    revisions = sum(c["ok"] for name, c in stages.items() if name.startswith("supervised/revise"))
    if revisions:
        return f"The run made {count_of(revisions, 'revision')} and no preference pairs yet."
    return "This run has no results yet."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _win_card(data: ReportData) -> Card | None:
    entry = data.win_rate()
    if entry is None or data.final_policy is None:
        return None
    tone = "better" if entry["low"] > 0.5 else "worse" if entry["high"] < 0.5 else ""
    return Card(
        f"Win rate, {policy_label(data.final_policy).lower()} vs initial".replace(
            "sl-cai", "SL-CAI"
        ),
        percent(entry["win_rate"]),
        f"{percent_range(entry['low'], entry['high'])}, n = {number(entry['num_comparisons'])}",
        tone,
    )


def _share_card(data: ReportData, name: str) -> Card | None:
    final = data.final_policy
    if final is None:
        return None
    before, after = _share(data, "initial", name), _share(data, final, name)
    if before is None or after is None:
        return None
    titles = {"harmless": "Harmless replies to misdeeds", "good": "Good answers"}
    change = data.changes.get(name)
    note = change_range(change) if change else ""
    return Card(titles[name], percent_step(before, after), note, tone_of(name, change))


def _length_card(data: ReportData) -> Card | None:
    if data.final_policy is None:
        return None
    before, after = (data.policies[n]["mean_words"] for n in ("initial", data.final_policy))
    return Card("Words per reply", f"{number(before)} → {number(after)}", "mean, initial → final")


def _accuracy_card(data: ReportData) -> Card | None:
    labels = data.metrics.get("labels") or {}
    kept, raw = labels.get("accuracy_kept"), labels.get("accuracy_raw")
    if not kept or not raw:
        return None
    note = f"{percent_range(kept['low'], kept['high'])}, n = {number(kept['n'])}; all labels {percent(raw['share'])}"
    return Card("Label accuracy, kept pairs", percent(kept["share"]), note)


def _pairs_card(data: ReportData) -> Card | None:
    made = data.metrics.get("data")
    if not made or not made["pairs"]:
        return None
    note = f"{percent(made['kept'] / made['pairs'])} of {count_of(made['pairs'], 'comparison')}"
    return Card("Preference pairs kept", f"{made['kept']:,}", note)


def _consistency_card(data: ReportData) -> Card | None:
    labels = (data.metrics.get("data") or {}).get("labels") or {}
    share = labels.get("position_consistency")
    if share is None:
        return None
    return Card("Position consistency", percent(share), "labels that survive swapping the slots")
