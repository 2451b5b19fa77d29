"""The figures of a judge evaluation as tables of words, for page, Markdown and terminal.

In:  metrics.json of `rlaif judge-eval`
Out: headline, cards, tables
"""

from collections.abc import Mapping
from typing import Any

from pipeline.report.headline import Card, Headline
from pipeline.report.numbers import MISSING, count_of, number, percent, percent_range
from pipeline.report.tables import Table

Metrics = dict[str, Any]
BASELINES = {
    "always_a": "always slot A, one order",
    "longer": "the longer response",
    "shorter": "the shorter response",
    "coin": "a coin",
}


def headline(metrics: Metrics) -> Headline:
    """What the last judge (the pool, where there is one) reached, and what to compare it with."""
    judge, accuracy = metrics["judges"][-1], metrics["judges"][-1]["accuracy"]
    labels = count_of(metrics["num_rows"], "labeled pair")
    if accuracy is None:
        return Headline(
            f"The judge gave no readable label on {labels}.",
            "See the reasons below; its accuracy is unknown.",
        )
    # Always slot A is right half of the time over both orders; one order shows its luck only.
    rules = {key: metrics["baselines"][key]["share"] for key in ("coin", "longer", "shorter")}
    best = max(rules, key=lambda key: rules[key])
    detail = (
        f"The best rule that reads nothing, {BASELINES[best]}, is right on {percent(rules[best])}."
    )
    if missing := judge["rows"]["expected"] - accuracy["n"]:
        detail += (
            f" With {count_of(missing, 'row')} without a label counted as wrong it is "
            f"{percent(judge['accuracy_all']['share'])}."
        )
    if accuracy["low"] <= 0.5 <= accuracy["high"]:
        detail += " The interval contains 50 %, so this could be chance."
    return Headline(f"The judge is right on {spelled(accuracy)} of {labels}.", detail)


def cards(metrics: Metrics) -> list[Card]:
    """The figures that matter."""
    judge = metrics["judges"][-1]
    confidence = judge["confidence"]
    if not confidence:
        return [Card("Readable labels", "0", f"of {number(judge['rows']['expected'])}")]
    shares = {
        "Accuracy": judge["accuracy"],
        "Over all rows": judge["accuracy_all"],
        "Orders disagree": judge["position"]["order_disagreement"],
        "Prefers the longer": judge["length"]["longer_wins"],
    }
    return [
        *(
            Card(title, _share(e), percent_range(e["low"], e["high"]) if e else "")
            for title, e in shares.items()
        ),
        Card(
            "Calibration error",
            number(confidence["ece"], 3),
            f"{number(confidence['ece_by_chance'], 3)} by chance",
        ),
    ]


def all_tables(metrics: Metrics) -> list[Table]:
    """All tables, without those that have no row."""
    tables = [
        accuracy_table(metrics),
        _position_table(metrics),
        _length_table(metrics),
        _confidence_table(metrics),
        _calibration_table(metrics),
        _group_table(metrics, "principle"),
        _group_table(metrics, "tag"),
        _unreadable_table(metrics),
        _source_table(metrics),
    ]
    return [table for table in tables if table.rows]


def accuracy_table(metrics: Metrics) -> Table:
    """Judges, then the rules that read nothing."""
    judges = [
        {
            "judge": _name(judge),
            "accuracy": spelled(judge["accuracy"]),
            "over all rows": spelled(judge["accuracy_all"]),
            "exactly 0.5": _share(judge["tie_share"]),
            "rows": number(judge["rows"]["expected"]),
            "no label": number(judge["rows"]["expected"] - (judge["accuracy"] or {"n": 0})["n"]),
        }
        for judge in metrics["judges"]
    ]
    rules = [
        {
            "judge": title,
            **dict.fromkeys(
                ("accuracy", "over all rows"),
                percent(0.5) if key == "coin" else spelled(metrics["baselines"][key]),
            ),
            "exactly 0.5": MISSING,
            "rows": number(metrics["baselines"][key]["n"]),
            "no label": MISSING,
        }
        for key, title in BASELINES.items()
    ]
    return Table(
        [*judges, *rules],
        "Accuracy",
        "A label of exactly 0.5 counts half. The first column leaves out rows without a label, the "
        "second counts them as wrong.",
    )


def spelled(estimate: Mapping[str, float] | None) -> str:
    """`72 % (63 to 80 %)`."""
    if estimate is None:
        return MISSING
    return f"{percent(estimate['share'])} ({percent_range(estimate['low'], estimate['high'])})"


def _position_table(metrics: Metrics) -> Table:
    rows = [
        {
            "judge": _name(judge),
            "forward": _share(judge["orders"]["forward"]),
            "swapped": _share(judge["orders"]["swapped"]),
            "better in A": _share(judge["orders"]["chosen_in_a"]),
            "better in B": _share(judge["orders"]["chosen_in_b"]),
            "orders disagree": spelled(judge["position"]["order_disagreement"]),
            "A wins twice": _share(judge["position"]["same_slot_a"]),
            "B wins twice": _share(judge["position"]["same_slot_b"]),
            "calls won by A": spelled(judge["position"]["slot_a_share"]),
        }
        for judge in _readable(metrics)
        # Scores have no orders.
        if judge["position"]["order_disagreement"]
    ]
    return Table(
        rows,
        "Position",
        "Accuracy of single calls: by order, and by the slot of the better response. Where the "
        "orders disagree, one slot wins twice.",
    )


def _length_table(metrics: Metrics) -> Table:
    rows = [
        {
            "judge": _name(judge),
            "prefers the longer": spelled(judge["length"]["longer_wins"]),
            "the better is longer": _share(judge["length"]["chosen_longer"]),
            "accuracy there": _share(judge["length"]["accuracy_longer_right"]),
            "accuracy elsewhere": _share(judge["length"]["accuracy_shorter_right"]),
        }
        for judge in _readable(metrics)
    ]
    return Table(rows, "Length", "In words, on pairs whose lengths differ.")


def _confidence_table(metrics: Metrics) -> Table:
    """Raw figures too where labels are calibrated."""
    rows = []
    for judge in _readable(metrics):
        raw = judge["raw_confidence"]
        title = f"{_name(judge)}, calibrated" if raw else _name(judge)
        rows.append({"judge": title, **_confidence(judge["confidence"])})
        rows += [{"judge": f"{_name(judge)}, raw", **_confidence(raw)}] if raw else []
    bins = rows and _readable(metrics)[0]["confidence"]["num_bins"]
    return Table(
        rows,
        "Confidence",
        f"ECE: calibration error over at most {bins} bins of equal mass; beside it that of a "
        "perfectly calibrated judge with as many labels. A judge that always says 0.5 has Brier "
        "0.250 and log-loss 0.693.",
    )


def _calibration_table(metrics: Metrics) -> Table:
    fitted = metrics["calibration"]
    if not fitted:
        return Table([])
    change, temperature = fitted["brier_change"], fitted["map"]["temperature"]
    return Table(
        [{"labels": name, **_confidence(fitted[name])} for name in ("before", "after")],
        "Calibration",
        f"{f'temperature {temperature:.3f}' if temperature else 'isotonic'}, fitted on "
        f"{count_of(fitted['fitted_on'], 'label')} of one half of the contexts, measured on "
        f"{count_of(fitted['measured_on'], 'label')} of the other; change of Brier "
        f"{number(change['share'], 4)} ({number(change['low'], 4)} to "
        f"{number(change['high'], 4)}), below 0 is better.",
    )


def _group_table(metrics: Metrics, kind: str) -> Table:
    # With several judges the pooled label has many principles; the first judge's has one.
    judge = metrics["judges"][0]
    rows = [
        {
            kind: group["id"],
            "accuracy": spelled(group["accuracy"]),
            "rows": number(group["expected"]),
            "no label": number(group["unreadable"]),
        }
        for group in judge[f"by_{kind}"]
    ]
    return Table(rows, f"By {kind}", f"Labels of '{judge['name']}'.")


def _unreadable_table(metrics: Metrics) -> Table:
    rows = [
        {"judge": _name(judge), "reason": reason, "rows": number(count)}
        for judge in metrics["judges"]
        for reason, count in judge["unreadable"].items()
    ]
    return Table(
        rows,
        "Rows without a label",
        "Unparsed: the reply is not a verdict. Failed: the call gave no reply.",
    )


def _source_table(metrics: Metrics) -> Table:
    rows = []
    for source in metrics["sources"]:
        reasons = "; ".join(f"{n} x {reason}" for reason, n in source["reasons"].items())
        rows.append(
            {
                "file": f"{source['file']} ({source['kind']})",
                "lines": number(source["num_rows"]),
                "usable": number(source["num_ok"]),
                "dropped": f"{source['num_dropped']}{f': {reasons}' if reasons else ''}",
                "SHA-256": source["sha256"][:16],
            }
        )
    return Table(rows, "Label files")


def _confidence(figures: dict[str, Any]) -> dict[str, str]:
    return {
        "mean confidence": percent(figures["mean"]),
        "Brier": number(figures["brier_score"], 3),
        "log-loss": number(figures["log_loss"], 3),
        "ECE": number(figures["ece"], 3),
        "ECE by chance": number(figures["ece_by_chance"], 3),
    }


def _readable(metrics: Metrics) -> list[dict[str, Any]]:
    return [judge for judge in metrics["judges"] if judge["confidence"]]


def _name(judge: dict[str, Any]) -> str:
    return f"{judge['name']}: {judge['model']}"


def _share(estimate: Mapping[str, float] | None) -> str:
    return MISSING if estimate is None else percent(estimate["share"])
