"""Tables of the matches between policies and of what each policy declines."""

from pipeline.report.numbers import MISSING, number, percent, percent_range, policy_label
from pipeline.report.source import ReportData
from pipeline.report.tables import Row, Table
from pipeline.stats import detectable


def match_table(data: ReportData) -> Table:
    """Win rates of every match, also at equal lengths, and the difference that could be found."""
    rows: list[Row] = []
    for entry in data.metrics.win_rates:
        if entry.win_rate is None:
            continue
        even = entry.length_controlled
        evened = (even.low, even.high) if even else (None, None)
        rows.append(
            {
                "match": match_title(entry.policy, entry.against),
                "win rate": percent(entry.win_rate),
                "95 % interval": percent_range(entry.low, entry.high),
                "detectable": _detectable(entry.low, entry.high),
                "at equal lengths": percent(even.share if even else None),
                "its 95 % interval": percent_range(*evened),
                "comparisons": number(entry.num_comparisons),
                "ties": percent(entry.tie_share),
                "mean P(preferred)": number(
                    entry.prob_preferred.share if entry.prob_preferred else None, 2
                ),
                "position consistency": percent(entry.position_consistency),
                "unparsed": number(entry.unparsed),
            }
        )
    note = (
        "Detectable: the smallest true difference, in points, that an evaluation of this size "
        "finds four times in five."
    )
    if any(row["at equal lengths"] == MISSING for row in rows):
        note += (
            " Without a figure at equal lengths, all outcomes are equal, or the replies of one "
            "policy are always longer, so that no comparison says what happens at equal lengths."
        )
    if judge := data.metrics.judge:
        note = f"The judge is {judge.describe()}. {note}"
    return Table(rows, "Matches", note if rows else "")


def match_title(policy: str, against: str) -> str:
    """`Tuned vs Initial`."""
    return f"{policy_label(policy)} vs {policy_label(against)}"


def refusal_table(data: ReportData) -> Table:
    """Replies that decline, by tag of the held-out prompts and by policy."""
    policies = data.metrics.policies
    tags = dict.fromkeys(tag for entry in policies.values() for tag in entry.refused)
    rows: list[Row] = [
        {
            "prompts tagged": tag,
            "policy": policy_label(name),
            "replies that decline": percent(share.share),
            "95 % interval": percent_range(share.low, share.high),
            "detectable": _detectable(share.low, share.high),
            "n": number(share.n),
        }
        for tag in tags
        for name, entry in policies.items()
        if (share := entry.refused.get(tag)) is not None
    ]
    return Table(rows, "Refusals by tag")


def _detectable(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return MISSING
    return f"{number(100 * detectable(low, high), 1)} points"
