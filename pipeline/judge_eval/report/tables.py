"""The figures of a judge evaluation as tables of words, for page, Markdown and terminal.

In:  the metrics of `rlaif judge-eval`
Out: headline, cards, tables
"""

from collections.abc import Callable

from pipeline.judge_eval.figures import NUM_BINS, Confidence, GroupFigures, JudgeFigures
from pipeline.judge_eval.metrics import EvaluationMetrics, JudgeMetrics
from pipeline.report.headline import Card, Headline
from pipeline.report.numbers import (
    MISSING,
    count_of,
    interval_of,
    number,
    percent,
    share_of,
    spelled,
)
from pipeline.report.tables import Table
from pipeline.stats import Estimate

BASELINES = {
    "always_a": "always slot A, one order",
    "longer": "the longer response",
    "shorter": "the shorter response",
    "coin": "a coin",
}


def headline(metrics: EvaluationMetrics) -> Headline:
    """What the last judge (the pool, where there is one) reached, and what to compare it with."""
    judge = metrics.judges[-1]
    accuracy, over_all = judge.figures.accuracy, judge.figures.accuracy_all
    labels = count_of(metrics.num_rows, "labeled pair")
    if accuracy is None or over_all is None:
        return Headline(
            f"The judge gave no readable label on {labels}.",
            "See the reasons below; its accuracy is unknown.",
        )
    # Always slot A is right half of the time over both orders; one order shows its luck only.
    shares = _rules(metrics)
    rules = {key: s for key in ("coin", "longer", "shorter") if (s := shares[key]) is not None}
    best = max(rules, key=lambda key: rules[key].share)
    detail = (
        f"The best rule that reads nothing, {BASELINES[best]}, is right on "
        f"{percent(rules[best].share)}."
    )
    if missing := judge.num_unlabeled:
        detail += (
            f" With {count_of(missing, 'row')} without a label counted as wrong it is "
            f"{percent(over_all.share)}."
        )
    if accuracy.low <= 0.5 <= accuracy.high:
        detail += " The interval contains 50 %, so this could be chance."
    return Headline(f"The judge is right on {spelled(accuracy)} of {labels}.", detail)


def cards(metrics: EvaluationMetrics) -> list[Card]:
    """The figures that matter."""
    judge = metrics.judges[-1].figures
    confidence = judge.confidence
    if not confidence:
        return [Card("Readable labels", "0", f"of {number(judge.rows.expected)}")]
    shares = {
        "Accuracy": judge.accuracy,
        "Over all rows": judge.accuracy_all,
        "Orders disagree": judge.position.order_disagreement,
        "Prefers the longer": judge.length.longer_wins,
    }
    return [
        *(Card(title, share_of(e), interval_of(e) if e else "") for title, e in shares.items()),
        Card(
            "Calibration error",
            number(confidence.ece, 3),
            f"{number(confidence.ece_by_chance, 3)} by chance",
        ),
    ]


def all_tables(metrics: EvaluationMetrics) -> list[Table]:
    """All tables, without those that have no row."""
    tables = [
        accuracy_table(metrics),
        _position_table(metrics),
        _length_table(metrics),
        _confidence_table(metrics),
        _calibration_table(metrics),
        _group_table(metrics, "principle", lambda figures: figures.by_principle),
        _group_table(metrics, "tag", lambda figures: figures.by_tag),
        _unreadable_table(metrics),
        _source_table(metrics),
    ]
    return [table for table in tables if table.rows]


def accuracy_table(metrics: EvaluationMetrics) -> Table:
    """Judges, then the rules that read nothing."""
    judges = [
        {
            "judge": judge.title,
            "accuracy": spelled(judge.figures.accuracy),
            "over all rows": spelled(judge.figures.accuracy_all),
            "exactly 0.5": share_of(judge.figures.tie_share),
            "rows": number(judge.figures.rows.expected),
            "no label": number(judge.num_unlabeled),
        }
        for judge in metrics.judges
    ]
    rules = [
        {
            "judge": BASELINES[key],
            **dict.fromkeys(
                ("accuracy", "over all rows"), percent(0.5) if key == "coin" else spelled(share)
            ),
            "exactly 0.5": MISSING,
            "rows": number(share.n if share else 0),
            "no label": MISSING,
        }
        for key, share in _rules(metrics).items()
    ]
    return Table(
        [*judges, *rules],
        "Accuracy",
        "A label of exactly 0.5 counts half. The first column leaves out rows without a label, the "
        "second counts them as wrong.",
    )


def _position_table(metrics: EvaluationMetrics) -> Table:
    rows = [
        {
            "judge": judge.title,
            "forward": share_of(judge.figures.orders.forward),
            "swapped": share_of(judge.figures.orders.swapped),
            "better in A": share_of(judge.figures.orders.chosen_in_a),
            "better in B": share_of(judge.figures.orders.chosen_in_b),
            "orders disagree": spelled(position.order_disagreement),
            "A wins twice": share_of(position.same_slot_a),
            "B wins twice": share_of(position.same_slot_b),
            "calls won by A": spelled(position.slot_a_share),
        }
        for judge, _ in _readable(metrics)
        # Scores have no orders.
        if (position := judge.figures.position).order_disagreement
    ]
    return Table(
        rows,
        "Position",
        "Accuracy of single calls: by order, and by the slot of the better response. Where the "
        "orders disagree, one slot wins twice.",
    )


def _length_table(metrics: EvaluationMetrics) -> Table:
    rows = [
        {
            "judge": judge.title,
            "prefers the longer": spelled(judge.figures.length.longer_wins),
            "the better is longer": share_of(judge.figures.length.chosen_longer),
            "accuracy there": share_of(judge.figures.length.accuracy_longer_right),
            "accuracy elsewhere": share_of(judge.figures.length.accuracy_shorter_right),
        }
        for judge, _ in _readable(metrics)
    ]
    return Table(rows, "Length", "In words, on pairs whose lengths differ.")


def _confidence_table(metrics: EvaluationMetrics) -> Table:
    """Raw figures too where labels are calibrated."""
    rows = []
    for judge, confidence in _readable(metrics):
        raw = judge.figures.raw_confidence
        title = f"{judge.title}, calibrated" if raw else judge.title
        rows.append({"judge": title, **_confidence(confidence)})
        rows += [{"judge": f"{judge.title}, raw", **_confidence(raw)}] if raw else []
    return Table(
        rows,
        "Confidence",
        f"ECE: calibration error over at most {NUM_BINS} bins of equal mass; beside it that of a "
        "perfectly calibrated judge with as many labels. A judge that always says 0.5 has Brier "
        "0.250 and log-loss 0.693.",
    )


def _calibration_table(metrics: EvaluationMetrics) -> Table:
    fitted = metrics.calibration
    if not fitted:
        return Table([])
    temperature = fitted.calibration.temperature
    share, low, high = (
        (change.share, change.low, change.high) if (change := fitted.brier_change) else [None] * 3
    )
    return Table(
        [
            {"labels": "before", **_confidence(fitted.before)},
            {"labels": "after", **_confidence(fitted.after)},
        ],
        "Calibration",
        f"{f'temperature {temperature:.3f}' if temperature else 'isotonic'}, fitted on "
        f"{count_of(fitted.calibration.num_rows, 'label')} of one half of the contexts, measured "
        f"on {count_of(fitted.before.n, 'label')} of the other; change of Brier "
        f"{number(share, 4)} ({number(low, 4)} to {number(high, 4)}), below 0 is better.",
    )


def _group_table(
    metrics: EvaluationMetrics,
    kind: str,
    groups_of: Callable[[JudgeFigures], tuple[GroupFigures, ...]],
) -> Table:
    # With several judges the pooled label has many principles; the first judge's has one.
    judge = metrics.judges[0]
    rows = [
        {
            kind: group.id,
            "accuracy": spelled(group.accuracy),
            "rows": number(group.expected),
            "no label": number(group.unreadable),
        }
        for group in groups_of(judge.figures)
    ]
    return Table(rows, f"By {kind}", f"Labels of '{judge.name}'.")


def _unreadable_table(metrics: EvaluationMetrics) -> Table:
    rows = [
        {"judge": judge.title, "reason": reason, "rows": number(count)}
        for judge in metrics.judges
        for reason, count in judge.figures.unreadable.items()
    ]
    return Table(
        rows,
        "Rows without a label",
        "Unparsed: the reply is not a verdict. Failed: the call gave no reply.",
    )


def _source_table(metrics: EvaluationMetrics) -> Table:
    rows = []
    for source in metrics.sources:
        reasons = "; ".join(f"{n} x {reason}" for reason, n in source.reasons.items())
        rows.append(
            {
                "file": f"{source.path} ({source.kind})",
                "lines": number(source.num_rows),
                "usable": number(source.num_ok),
                "dropped": f"{source.num_dropped}{f': {reasons}' if reasons else ''}",
                "SHA-256": source.sha256[:16],
            }
        )
    return Table(rows, "Label files")


def _confidence(figures: Confidence) -> dict[str, str]:
    return {
        "mean confidence": percent(figures.mean),
        "Brier": number(figures.brier_score, 3),
        "log-loss": number(figures.log_loss, 3),
        "ECE": number(figures.ece, 3),
        "ECE by chance": number(figures.ece_by_chance, 3),
    }


def _readable(metrics: EvaluationMetrics) -> list[tuple[JudgeMetrics, Confidence]]:
    return [(judge, known) for judge in metrics.judges if (known := judge.figures.confidence)]


def _rules(metrics: EvaluationMetrics) -> dict[str, Estimate | None]:
    """The baselines, by name in `BASELINES`."""
    return dict(vars(metrics.baselines))
