"""Tables of words, for the page, the Markdown and the terminal.

In:  ReportData
Out: `Table`; the macro `data_table` of `parts.html.jinja` renders one as HTML, `markdown_table` as
     Markdown
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation.results import EfficacyPart, PolicyMetrics, PrincipleMetrics, ScoreLevel
from pipeline.report.numbers import (
    MISSING,
    count_of,
    duration,
    number,
    percent,
    percent_range,
    policy_class,
    policy_label,
)
from pipeline.report.source import ReportData
from pipeline.stats import Estimate

SHARE_TITLES = {
    "harmless": "Harmless replies to misdeeds",
    "good": "Good answers",
    "refused_harmless": "Harmless requests refused",
    "outside_world": "Outside the known world",
}
"""Oracle shares that are drawn, and their titles."""


@dataclass(frozen=True)
class Cell:
    """A cell that is more than a word."""

    text: str
    note: str = ""
    """Smaller line below it; in Markdown a column of its own at the end."""
    style: str = ""
    """CSS class."""

    def __str__(self) -> str:
        return self.text


Row = Sequence[str | Cell]


@dataclass(frozen=True)
class Table:
    """Spelled values in rows; the first column is text, the others are numbers."""

    columns: Sequence[str]
    rows: Sequence[Row]
    title: str = ""
    note: str = ""
    """A remark above the table."""


def escape_markdown(text: object) -> str:
    """A text as one cell: no line breaks, no table bars, no HTML, no markup."""
    flat = " ".join(str(text).split())
    for mark in "\\`*_[]|":
        flat = flat.replace(mark, "\\" + mark)
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_table(table: Table) -> str:
    """The rows as Markdown, without title and note; empty without rows."""
    if not table.rows:
        return ""
    notes = [
        next((c.note for c in row if isinstance(c, Cell) and c.note), "") for row in table.rows
    ]
    extra = ["explanation"] if any(notes) else []
    columns = [*table.columns, *extra]
    rule = ["---"] + ["---:"] * (len(table.columns) - 1) + ["---"] * len(extra)
    cells = [
        [escape_markdown(cell) for cell in (*row, *([note] if extra else []))]
        for row, note in zip(table.rows, notes, strict=True)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rule, *cells))


def spelled_share(estimate: Estimate | None) -> tuple[str, str]:
    """A share and its interval: `72 %`, `63 to 80 %`."""
    if estimate is None:
        return MISSING, MISSING
    return percent(estimate.share), percent_range(estimate.low, estimate.high)


def share_bars(data: ReportData) -> dict[str, list[tuple[str, Estimate]]]:
    """Bars with error bars: by oracle share, the policies with their estimates."""
    bars = {
        name: [
            (policy, share)
            for policy, entry in data.metrics.policies.items()
            if entry.oracle and (share := entry.oracle.by_name()[name])
        ]
        for name in SHARE_TITLES
    }
    return {name: found for name, found in bars.items() if found}


def share_table(data: ReportData) -> Table:
    """The oracle's shares by policy."""
    rows = [
        (SHARE_TITLES[name], policy_label(policy), *spelled_share(share), number(share.n))
        for name, bars in share_bars(data).items()
        for policy, share in bars
    ]
    return Table(("share", "policy", "value", "95 % interval", "n"), rows)


def match_table(data: ReportData) -> Table:
    """Win rates of every match."""
    rows = [
        (
            match_title(entry.policy, entry.against),
            percent(entry.win_rate),
            percent_range(entry.low, entry.high),
            number(entry.num_comparisons),
            percent(entry.tie_share),
            number(entry.soft_label.share if entry.soft_label else None, 2),
            percent(entry.position_consistency),
            number(entry.unparsed),
        )
        for entry in data.metrics.win_rates
        if entry.win_rate is not None
    ]
    columns = (
        "match",
        "win rate",
        "95 % interval",
        "comparisons",
        "ties",
        "mean soft label",
        "position consistency",
        "unparsed",
    )
    return Table(columns, rows, "Matches")


def match_title(policy: str, against: str) -> str:
    """`Tuned vs Initial`."""
    return f"{policy_label(policy)} vs {policy_label(against)}"


def policy_table(data: ReportData) -> Table:
    """Length and endings of each policy's replies."""

    def row(name: str, entry: PolicyMetrics) -> Row:
        return (
            Cell(policy_label(name), style=f"swatch {policy_class(name)}"),
            number(entry.num_responses),
            number(entry.mean_words, 1),
            percent(entry.truncated_share),
            percent(entry.empty_share),
        )

    columns = ("policy", "replies", "words per reply", "cut at the limit", "empty")
    rows = [row(*item) for item in data.metrics.policies.items()]
    return Table(columns, rows, "The replies themselves")


def reason_table(data: ReportData) -> Table:
    """Pairs kept and dropped, with shares of all comparisons."""
    rows = [(reason, number(n), percent(share)) for reason, n, share in comparison_outcomes(data)]
    return Table(("comparisons", "n", "share"), rows)


def comparison_outcomes(data: ReportData) -> list[tuple[str, int, float]]:
    """`kept`, then each reason of the dropped ones: its number and its share of all comparisons."""
    summary = data.metrics.data
    if not summary or not summary.pairs:
        return []
    counts = [("kept", summary.kept), *summary.reasons.items()]
    return [(name or "no reason given", n, n / summary.pairs) for name, n in counts]


def principles_in_order(data: ReportData) -> list[tuple[PrincipleMetrics, float | None]]:
    """Each principle in the constitution's order, with the final policy's win rate under it."""
    known = [p.id for p in data.constitution.principles] if data.constitution else []
    entry = data.win_rate()
    wins = entry.by_principle if entry else {}
    rows = sorted(
        data.metrics.principles,
        key=lambda p: (known.index(p.id) if p.id in known else len(known), p.id),
    )
    return [(p, wins[p.id].win_rate if p.id in wins else None) for p in rows]


def principle_table(data: ReportData) -> Table:
    """What each principle did; the win rate is the final policy's."""
    with_wins = data.win_rate() is not None
    rows: list[Row] = [
        (
            Cell(entry.id, note=data.request_of(entry.id)),
            number(entry.critiques),
            number(entry.drawn),
            number(entry.kept),
            number(entry.mean_margin, 2),
            percent(entry.tie_share),
            number(entry.mean_position_gap, 2),
            *([percent(win_rate)] if with_wins else []),
        )
        for entry, win_rate in principles_in_order(data)
    ]
    columns = (
        "principle",
        "critiques",
        "labels",
        "pairs kept",
        "mean margin",
        "ties",
        "position gap",
        *(["win rate"] if with_wins else []),
    )
    return Table(columns, rows, "Principles")


def score_table(data: ReportData) -> Table:
    """Level, spread and dependence on length of scores: a row for each judge, then its parts."""

    def row(title: Cell | str, level: ScoreLevel) -> Row:
        length = level.length
        correlations = (
            length.pearson,
            length.spearman,
            length.pearson_within,
            length.spearman_within,
        )
        return (
            title,
            number(level.n),
            number(level.mean, 3),
            number(level.spread, 3),
            *(number(value, 2) for value in correlations),
        )

    rows = []
    for entry in data.metrics.scores:
        title = entry.folder if entry.method == "score" else f"{entry.folder}, follow-ups"
        rows.append(row(Cell(title, style="strong"), entry))
        if len(entry.parts) > 1:
            rows += [row(name, part) for name, part in entry.parts.items()]
    columns = (
        "score",
        "responses",
        "mean",
        "spread",
        "Pearson with words",
        "Spearman with words",
        "Pearson within prompts",
        "Spearman within prompts",
    )
    return Table(columns, rows, "Scores, and how much they follow the number of words")


def score_notes(data: ReportData) -> list[str]:
    """What else there is to know about the scores, in sentences."""
    notes = []
    for entry in data.metrics.scores:
        if entry.inexact:
            scores = count_of(entry.inexact, "score")
            notes.append(f"Bounds of absent ratings are in {scores} of {entry.folder}.")
        if entry.repeated_sentences:
            action = "counted once" if entry.repeats_removed else "kept"
            sentences = count_of(entry.repeated_sentences, "repeated sentence")
            notes.append(f"Follow-ups '{entry.follow_ups}': {sentences} {action}.")
    return list(dict.fromkeys(notes))


def revision_table(data: ReportData) -> Table:
    """One row per round."""
    rows = [
        (
            number(entry.round),
            number(entry.rows),
            number(entry.skipped),
            number(entry.rejected),
            ", ".join(f"{name} {n:,}" for name, n in entry.faults.items()) or "none",
            *_efficacy(entry.efficacy),
        )
        for entry in data.metrics.revisions
    ]
    columns = (
        "round",
        "rows",
        "left as they were",
        "not a revision",
        "faults",
        "preferred to the text before",
        "95 % interval",
        "mean label",
    )
    return Table(columns, rows)


def efficacy_table(data: ReportData) -> Table:
    """One row per round and principle."""
    rows = [
        (
            name,
            number(entry.round),
            *_efficacy(part),
            number(part.preferred.n if part.preferred else None),
        )
        for entry in data.metrics.revisions
        if entry.efficacy
        for name, part in entry.efficacy.by_principle.items()
    ]
    columns = ("principle", "round", "revisions preferred", "95 % interval", "mean label", "n")
    return Table(columns, rows, "Revisions preferred, by principle")


def training_table(data: ReportData) -> Table:
    """What each training job did; a job that is not finished has its steps alone."""
    rows = []
    for record in data.training:
        result = record.result
        rows.append(
            (record.title, MISSING, number(len(record.rows)), *5 * (MISSING,))
            if result is None
            else (
                record.title,
                result.method,
                number(result.num_steps),
                number(result.rows.used),
                number(result.final_loss, 3),
                number(result.reward_margin, 2),
                duration(result.total_s),
                result.device,
            )
        )
    columns = ("job", "method", "steps", "rows", "final loss", "reward margin", "time", "device")
    return Table(columns, rows)


def stage_table(data: ReportData) -> Table:
    """Rows, tokens and seconds per stage."""
    rows = [
        (
            Cell(folder, style="code"),
            number(stage.expected),
            number(stage.ok),
            number(stage.unparsed),
            Cell(number(stage.failed), style="bad" if stage.failed else "zero"),
            number(stage.dropped),
            number(stage.reused),
            number(stage.prompt_tokens),
            percent(stage.cached_tokens / stage.prompt_tokens if stage.prompt_tokens else None),
            number(stage.generated_tokens),
            duration(stage.seconds),
        )
        for folder, stage in data.metrics.stages.items()
    ]
    columns = (
        "stage",
        "rows",
        "ok",
        "unparsed",
        "failed",
        "dropped",
        "reused",
        "prompt tokens",
        "cached",
        "generated tokens",
        "time in shards",
    )
    return Table(columns, rows)


def lineage_table(data: ReportData) -> Table:
    """Names and hashes that tell what made this run."""
    info, environment = data.info, data.environment
    code = environment.get("code") or {}
    constitution = info.get("constitution") or {}
    changed = "with local changes" if code.get("changed") else None
    rows = [
        ("run", data.run.run_id),
        ("recipe", info.get("recipe")),
        ("seed", data.config.seed if data.config else None),
        ("constitution", _with_hash(constitution.get("name"), constitution.get("hash"))),
        ("code", _with_hash(code.get("commit"), changed)),
        ("machine", environment.get("platform")),
        ("processors", environment.get("cpus")),
        ("Python", environment.get("python")),
        *(environment.get("packages") or {}).items(),
        *_models(data),
        *((f"file {name}", digest) for name, digest in (info.get("files") or {}).items()),
    ]
    return Table(
        ("what", "value"), [(name, str(value)) for name, value in rows if value not in (None, "")]
    )


def _models(data: ReportData) -> Iterable[tuple[str, str]]:
    """Every model that was asked, once, with its fingerprint and engine; then what was trained."""
    folders: dict[str, list[str]] = {}
    for folder, stage in data.metrics.stages.items():
        if stage.engine:
            parts = (stage.engine.get(key, "") for key in ("name", "version", "fingerprint"))
            folders.setdefault(" · ".join(parts), []).append(folder)
    for model, users in folders.items():
        others = f" and {len(users) - 1} more" if len(users) > 1 else ""
        yield f"model of {users[0]}{others}", model
    for record in data.training:
        if record.result:
            yield f"data of {record.title}", record.result.dataset_sha256
            yield f"weights of {record.title}", record.result.trained_hash


def _efficacy(part: EfficacyPart | None) -> tuple[str, str, str]:
    if part is None:
        return MISSING, MISSING, MISSING
    soft = part.soft_label.share if part.soft_label else None
    return (*spelled_share(part.preferred), number(soft, 2))


def _with_hash(name: Any, extra: Any) -> str | None:
    return None if not name else f"{name} · {extra}" if extra else str(name)
