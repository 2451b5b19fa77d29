"""The figures of a judge evaluation as tables of words: one source for page, Markdown and terminal.

In:  metrics.json of `rlaif judge-eval`
Out: Grid: title, remark, names of the columns, rows of spelled values
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.numbers import MISSING, count_of, number, percent, percent_range

Metrics = dict[str, Any]
BASELINES = {
    "always_a": "always slot A, one order",
    "longer": "the longer response",
    "shorter": "the shorter response",
    "coin": "a coin",
}


@dataclass(frozen=True)
class Grid:
    """One table."""

    title: str
    note: str
    names: tuple[str, ...]
    rows: list[tuple[str, ...]]


def headline(metrics: Metrics) -> tuple[str, str]:
    """What the last judge (the pool, where there is one) reached, and what to compare it with."""
    judge, best = metrics["judges"][-1], _best_baseline(metrics)
    labels = count_of(metrics["num_rows"], "labelled pair")
    if judge["accuracy"] is None:
        return (
            f"The judge gave no readable label on {labels}.",
            "See the reasons below; nothing can be said about its accuracy.",
        )
    accuracy, whole = judge["accuracy"], judge["accuracy_all"]
    lead = f"The judge is right on {spelled(accuracy)} of {labels}."
    detail = (
        f"The best rule that reads nothing, {BASELINES[best]}, is right on "
        f"{percent(metrics['baselines'][best]['share'])}."
    )
    if accuracy["n"] < judge["rows"]["expected"]:
        missing = count_of(judge["rows"]["expected"] - accuracy["n"], "row")
        detail += (
            f" With {missing} without a label counted as wrong it is {percent(whole['share'])}."
        )
    if accuracy["low"] <= 0.5 <= accuracy["high"]:
        detail += " The interval holds 50 %, so this is not told from chance."
    return lead, detail


def spelled(estimate: dict[str, float] | None) -> str:
    """`72 % (63 to 80 %)`."""
    if estimate is None:
        return MISSING
    return f"{percent(estimate['share'])} ({percent_range(estimate['low'], estimate['high'])})"


def grids(metrics: Metrics) -> list[Grid]:
    """All tables, without those that have no row."""
    found = [
        accuracy_grid(metrics),
        _position_grid(metrics),
        _length_grid(metrics),
        confidence_grid(metrics),
        _calibration_grid(metrics),
        _group_grid(metrics, "principle"),
        _group_grid(metrics, "tag"),
        _reading_grid(metrics),
        _source_grid(metrics),
    ]
    return [grid for grid in found if grid.rows]


def accuracy_grid(metrics: Metrics) -> Grid:
    """Judges, then the rules that read nothing."""
    rows = [
        (
            _name(judge),
            spelled(judge["accuracy"]),
            spelled(judge["accuracy_all"]),
            _part(judge["tie_share"]),
            number(judge["rows"]["expected"]),
            number(judge["rows"]["expected"] - _n(judge["accuracy"])),
        )
        for judge in metrics["judges"]
    ]
    rows += [
        (
            title,
            *(2 * (spelled(metrics["baselines"][key]) if key != "coin" else percent(0.5),)),
            MISSING,
            number(metrics["baselines"][key]["n"]),
            MISSING,
        )
        for key, title in BASELINES.items()
    ]
    return Grid(
        "Accuracy",
        "A label of exactly 0.5 counts half. The first column leaves out rows without "
        "a label, the second counts them as wrong.",
        ("judge", "accuracy", "over all rows", "exactly 0.5", "rows", "no label"),
        rows,
    )


def _position_grid(metrics: Metrics) -> Grid:
    rows = []
    for judge in _read(metrics):
        order, place = judge["orders"], judge["position"]
        rows.append(
            (
                _name(judge),
                _part(order["forward"]),
                _part(order["swapped"]),
                _part(order["chosen_in_a"]),
                _part(order["chosen_in_b"]),
                spelled(place["flip_rate"]),
                _part(place["same_slot_a"]),
                _part(place["same_slot_b"]),
                spelled(place["slot_a_share"]),
            )
        )
    return Grid(
        "Position",
        "Accuracy of single calls: by order, and by the slot of the better response. The "
        "orders of a flip prefer different responses, so that the same slot wins twice.",
        (
            "judge",
            "forward",
            "swapped",
            "better in A",
            "better in B",
            "flips",
            "A wins twice",
            "B wins twice",
            "calls that A wins",
        ),
        rows,
    )


def _length_grid(metrics: Metrics) -> Grid:
    rows = [
        (
            _name(judge),
            spelled(judge["length"]["longer_wins"]),
            _part(judge["length"]["chosen_longer"]),
            _part(judge["length"]["accuracy_longer_right"]),
            _part(judge["length"]["accuracy_shorter_right"]),
        )
        for judge in _read(metrics)
    ]
    return Grid(
        "Length",
        "In words, on pairs whose lengths differ.",
        (
            "judge",
            "prefers the longer",
            "the better is longer",
            "accuracy there",
            "accuracy elsewhere",
        ),
        rows,
    )


def confidence_grid(metrics: Metrics) -> Grid:
    """Brier score, log-loss and calibration error, raw ones too where labels are calibrated."""
    rows = []
    for judge in _read(metrics):
        raw = judge["raw_confidence"]
        suffix = ", calibrated" if raw else ""
        rows += [_confidence_row(f"{_name(judge)}{suffix}", judge["confidence"])]
        rows += [_confidence_row(f"{_name(judge)}, raw", raw)] if raw else []
    bins = rows and _read(metrics)[0]["confidence"]["num_bins"]
    return Grid(
        "Confidence",
        f"ECE: calibration error over at most {bins} bins of equal mass; beside it that "
        "of a perfectly calibrated judge with as many labels. A judge that always says 0.5 has Brier "
        "0.250 and log-loss 0.693.",
        ("judge", "mean confidence", "Brier", "log-loss", "ECE", "ECE by chance"),
        rows,
    )


def _calibration_grid(metrics: Metrics) -> Grid:
    fitted = metrics["calibration"]
    if not fitted:
        return Grid("Calibration", "", (), [])
    change, shape = fitted["brier_change"], fitted["map"]
    words = f"temperature {shape['temperature']:.3f}" if shape["temperature"] else "isotonic"
    return Grid(
        "Calibration",
        f"{words}, fitted on {count_of(fitted['fitted_on'], 'label')} of one half of "
        f"the contexts, measured on {count_of(fitted['measured_on'], 'label')} of the other; change "
        f"of Brier {number(change['share'], 4)} ({number(change['low'], 4)} to "
        f"{number(change['high'], 4)}), below 0 is better.",
        ("labels", "mean confidence", "Brier", "log-loss", "ECE", "ECE by chance"),
        [_confidence_row(name, fitted[name]) for name in ("before", "after")],
    )


def _group_grid(metrics: Metrics, kind: str) -> Grid:
    # Of several judges the pooled label stands under many principles; the first judge's does not.
    judge = metrics["judges"][0]
    rows = [
        (
            group["id"],
            spelled(group["accuracy"]),
            number(group["expected"]),
            number(group["unreadable"]),
        )
        for group in judge[f"by_{kind}"]
    ]
    return Grid(
        f"By {kind}", f"Labels of '{judge['name']}'.", (kind, "accuracy", "rows", "no label"), rows
    )


def _reading_grid(metrics: Metrics) -> Grid:
    rows = [
        (_name(judge), reason, number(count))
        for judge in metrics["judges"]
        for reason, count in judge["unreadable"].items()
    ]
    return Grid(
        "Rows without a label",
        "Unparsed: the reply is no verdict. Failed: the call gave no reply.",
        ("judge", "reason", "rows"),
        rows,
    )


def _source_grid(metrics: Metrics) -> Grid:
    rows = []
    for source in metrics["sources"]:
        left_out = "; ".join(f"{n} x {reason}" for reason, n in source["reasons"].items())
        rows.append(
            (
                f"{source['file']} ({source['kind']})",
                number(source["num_rows"]),
                number(source["num_ok"]),
                f"{source['num_dropped']}{f': {left_out}' if left_out else ''}",
                source["sha256"][:16],
            )
        )
    return Grid("Label files", "", ("file", "lines", "usable", "dropped", "sha256"), rows)


def _confidence_row(name: str, figures: dict[str, Any]) -> tuple[str, ...]:
    return (
        name,
        percent(figures["mean"]),
        number(figures["brier_score"], 3),
        number(figures["log_loss"], 3),
        number(figures["ece"], 3),
        number(figures["ece_by_chance"], 3),
    )


def _best_baseline(metrics: Metrics) -> str:
    # Always A is 0.5 in both orders; its luck in the drawn one is no mark to beat.
    return max(("coin", "longer", "shorter"), key=lambda key: metrics["baselines"][key]["share"])


def _read(metrics: Metrics) -> list[dict[str, Any]]:
    return [judge for judge in metrics["judges"] if judge["confidence"]]


def _name(judge: dict[str, Any]) -> str:
    return f"{judge['name']}: {judge['model']}"


def _part(estimate: dict[str, float] | None) -> str:
    return MISSING if estimate is None else percent(estimate["share"])


def _n(estimate: dict[str, float] | None) -> int:
    return 0 if estimate is None else int(estimate["n"])


def cards(metrics: Metrics) -> Sequence[tuple[str, str, str]]:
    """Title, value and remark of the figures that matter."""
    judge = metrics["judges"][-1]
    if not judge["confidence"]:
        return [("Readable labels", "0", f"of {number(judge['rows']['expected'])}")]
    found = [
        ("Accuracy", judge["accuracy"]),
        ("Over all rows", judge["accuracy_all"]),
        ("Flips between orders", judge["position"]["flip_rate"]),
        ("Prefers the longer", judge["length"]["longer_wins"]),
    ]
    return [
        *((title, _part(e), percent_range(e["low"], e["high"]) if e else "") for title, e in found),
        (
            "Calibration error",
            number(judge["confidence"]["ece"], 3),
            f"{number(judge['confidence']['ece_by_chance'], 3)} by chance",
        ),
    ]
