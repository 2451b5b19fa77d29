"""Tables of words, for the page, the Markdown and the terminal.

In:  ReportData
Out: `Table`; the macro `data_table` of `parts.html.jinja` renders one as HTML, `markdown_table` as
     Markdown
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.data.markdown import escape_markdown
from pipeline.evaluation.held_checks import ALL, measure_name
from pipeline.evaluation.results import EfficacyPart, PrincipleMetrics, ScoreLevel, StageMetrics
from pipeline.labeling.conflicts import describe_overruled
from pipeline.report.costs import stage_costs
from pipeline.report.numbers import (
    MISSING,
    change_range,
    count_of,
    duration,
    number,
    percent,
    percent_range,
    policy_class,
    policy_label,
)
from pipeline.report.source import ReportData, later_environments
from pipeline.stats import Estimate
from pipeline.training.job import TrainingResult

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


Row = Mapping[str, str | Cell]
"""A cell for each column; all rows of a table have the same columns."""


@dataclass(frozen=True)
class Table:
    """Spelled values in rows."""

    rows: Sequence[Row]
    title: str = ""
    note: str = ""
    """A remark above the table."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns; none without rows."""
        return list(self.rows[0]) if self.rows else []

    @property
    def words(self) -> set[str]:
        """Names of the columns of text: the first, and those with a cell that begins with a letter.
        The others have numbers, which align at their right end.
        """
        return {
            name
            for index, name in enumerate(self.columns)
            if index == 0 or any(str(row[name])[:1].isalpha() for row in self.rows)
        }


def markdown_table(table: Table) -> str:
    """The note and the rows as Markdown, without the title; empty without rows."""
    if not table.rows:
        return ""
    notes = [
        next((c.note for c in row.values() if isinstance(c, Cell) and c.note), "")
        for row in table.rows
    ]
    extra = ["explanation"] if any(notes) else []
    cells = [
        [escape_markdown(cell) for cell in (*row.values(), *([note] if extra else []))]
        for row, note in zip(table.rows, notes, strict=True)
    ]
    rule = ["---" if name in table.words else "---:" for name in table.columns]
    rule += ["---"] * len(extra)
    lines = ([*table.columns, *extra], rule, *cells)
    remark = [escape_markdown(table.note), ""] if table.note else []
    return "\n".join([*remark, *(f"| {' | '.join(line)} |" for line in lines)])


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
    return {name: group for name, group in bars.items() if group}


def share_table(data: ReportData) -> Table:
    """The oracle's shares by policy."""
    return Table(
        [
            {
                "share": SHARE_TITLES[name],
                "policy": policy_label(policy),
                "value": percent(share.share),
                "95 % interval": percent_range(share.low, share.high),
                "n": number(share.n),
            }
            for name, bars in share_bars(data).items()
            for policy, share in bars
        ]
    )


def held_checks_table(data: ReportData) -> Table:
    """Replies that hold each check, and all of them, by policy, with the final policy's change."""
    rows = []
    for policy, entry in data.metrics.policies.items():
        for name, share in {"all of them": entry.checks_all, **entry.checks}.items():
            measure = ALL if name == "all of them" else measure_name(name)
            change = data.changes.get(measure) if policy == data.final_policy else None
            if share is not None:
                rows.append(
                    {
                        "check of": name,
                        "policy": policy_label(policy),
                        "replies that hold it": percent(share.share),
                        "95 % interval": percent_range(share.low, share.high),
                        "change": change_range(change) if change else MISSING,
                        "n": number(share.n),
                    }
                )
    rows.sort(key=lambda row: row["check of"] != "all of them")
    return Table(rows, "Checks of the constitution, held by the replies to held-out prompts")


def policy_table(data: ReportData) -> Table:
    """Length and endings of each policy's replies."""
    rows: list[Row] = [
        {
            "policy": Cell(policy_label(name), style=f"swatch {policy_class(name)}"),
            "replies": number(entry.num_responses),
            "words per reply": number(entry.mean_words, 1),
            "cut at the limit": percent(entry.truncated_share),
            "empty": percent(entry.empty_share),
        }
        for name, entry in data.metrics.policies.items()
    ]
    return Table(rows, "The replies themselves")


def comparison_outcomes(data: ReportData) -> list[tuple[str, int, float]]:
    """`kept`, then each reason of the dropped ones: its number and its share of all comparisons."""
    summary = data.metrics.data
    if not summary or not summary.pairs:
        return []
    counts = [("kept", summary.kept), *summary.reasons.items()]
    return [(name or "no reason given", n, n / summary.pairs) for name, n in counts]


def outcome_table(data: ReportData) -> Table:
    """Pairs kept and dropped, with shares of all comparisons."""
    return Table(
        [
            {"comparisons": reason, "n": number(n), "share": percent(share)}
            for reason, n, share in comparison_outcomes(data)
        ]
    )


def label_notes(data: ReportData) -> list[str]:
    """The bound of wrong pairs, where the recipe asks for one, conflicts of principles, and the
    share of length.
    """
    summary = data.metrics.data
    if summary is None:
        return []
    overruled = [] if summary.overruled is None else [describe_overruled(summary.overruled)]
    parts = (summary.error_bound, summary.contrast)
    return [*overruled, *(part.describe() for part in parts if part)]


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
    rows: list[Row] = [
        {
            "principle": Cell(entry.id, note=data.request_of(entry.id)),
            "critiques": number(entry.critiques),
            "labels": number(entry.drawn),
            "pairs kept": number(entry.kept),
            "mean margin": number(entry.mean_margin, 2),
            "ties": percent(entry.tie_share),
            "position gap": number(entry.mean_position_gap, 2),
            **({"win rate": percent(win_rate)} if data.win_rate() else {}),
        }
        for entry, win_rate in principles_in_order(data)
    ]
    return Table(rows, "Principles")


def score_table(data: ReportData) -> Table:
    """Level, spread and dependence on length of scores: a row for each judge, then its parts."""
    levels: list[tuple[str | Cell, ScoreLevel]] = []
    for entry in data.metrics.scores:
        title = entry.folder if entry.method == "score" else f"{entry.folder}, follow-ups"
        levels.append((Cell(title, style="strong"), entry))
        levels += entry.parts.items() if len(entry.parts) > 1 else []
    rows: list[Row] = [
        {
            "score": title,
            "responses": number(level.n),
            "mean": number(level.mean, 3),
            "spread": number(level.spread, 3),
            "Pearson with words": number(level.length.pearson, 2),
            "Spearman with words": number(level.length.spearman, 2),
            "Pearson within prompts": number(level.length.pearson_within, 2),
            "Spearman within prompts": number(level.length.spearman_within, 2),
        }
        for title, level in levels
    ]
    return Table(rows, "Scores, and how much they follow the number of words")


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
    checked = any(entry.missed_check for entry in data.metrics.revisions)
    return Table(
        [
            {
                "round": number(entry.round),
                "rows": number(entry.rows),
                "left as they were": number(entry.skipped),
                "not a revision": number(entry.rejected),
                **(_missed_check(entry.missed_check) if checked else {}),
                "faults": ", ".join(f"{k} {n:,}" for k, n in entry.faults.items()) or "none",
                **_efficacy("preferred to the text before", entry.efficacy),
            }
            for entry in data.metrics.revisions
        ]
    )


def efficacy_table(data: ReportData) -> Table:
    """One row per round and principle."""
    rows = [
        {
            "principle": name,
            "round": number(entry.round),
            **_efficacy("revisions preferred", part),
            "n": number(part.preferred.n if part.preferred else None),
        }
        for entry in data.metrics.revisions
        if entry.efficacy
        for name, part in entry.efficacy.by_principle.items()
    ]
    return Table(rows, "Revisions preferred, by principle")


def training_table(data: ReportData) -> Table:
    """What each training job did; a job that is not finished has its steps alone."""
    rows = []
    measured = any(record.result and record.result.heldout for record in data.training)
    moved = any(r.result and r.result.divergence is not None for r in data.training)
    for record in data.training:
        result = record.result
        rows.append(
            {
                "job": record.title,
                "method": result.method if result else MISSING,
                "steps": number(result.num_steps if result else len(record.rows)),
                "rows": number(result.rows.used if result else None),
                "final loss": number(result.final_loss if result else None, 3),
                "reward margin": number(result.reward_margin if result else None, 2),
                **({"moved": number(result.divergence if result else None, 3)} if moved else {}),
                **({"held-out accuracy": _heldout(result)} if measured else {}),
                "time": duration(result.total_s if result else None),
                "device": result.device if result else MISSING,
            }
        )
    return Table(rows)


def _heldout(result: TrainingResult | None) -> str:
    """Accuracy of a reward model on pairs that it was not trained on."""
    held = result.heldout if result else None
    if held is None:
        return MISSING
    interval = percent_range(held.low, held.high)
    return f"{percent(held.accuracy)} ({interval}), {count_of(held.pairs, 'pair')}"


def stage_table(data: ReportData) -> Table:
    """Rows, tokens and seconds per stage; thoughts where a model had any."""
    stages = data.metrics.stages
    any_thoughts, costs = any(stage.thoughts for stage in stages.values()), stage_costs(data)
    rows: list[Row] = [
        {
            "stage": Cell(folder, style="code"),
            "rows": number(stage.expected),
            "ok": number(stage.ok),
            "unparsed": number(stage.unparsed),
            "failed": Cell(number(stage.failed), style="bad" if stage.failed else "zero"),
            "dropped": number(stage.dropped),
            "reused": number(stage.reused),
            "prompt tokens": number(stage.prompt_tokens + stage.earlier_prompt_tokens),
            "cached": percent(
                stage.cached_tokens / stage.prompt_tokens if stage.prompt_tokens else None
            ),
            "generated tokens": number(stage.generated_tokens + stage.earlier_generated_tokens),
            **(_thoughts(stage) if any_thoughts else {}),
            "time in shards": duration(stage.seconds + stage.earlier_seconds),
            **({"cost": costs[folder]} if folder in costs else {}),
        }
        for folder, stage in stages.items()
    ]
    return Table(rows)


def lineage_table(data: ReportData) -> Table:
    """Names and hashes that tell what made this run."""
    info, environment = data.info, data.environment
    constitution = info.get("constitution") or {}
    rows = [
        ("run", data.run.run_id),
        ("recipe", info.get("recipe")),
        ("seed", data.config.seed if data.config else None),
        ("constitution", _with_hash(constitution.get("name"), constitution.get("hash"))),
        ("code", _code(environment)),
        *(("code of a resume", _code(later)) for later in later_environments(environment)),
        ("machine", environment.get("platform")),
        ("processors", environment.get("cpus")),
        ("Python", environment.get("python")),
        *(environment.get("packages") or {}).items(),
        *_models(data),
        *((f"file {name}", digest) for name, digest in (info.get("files") or {}).items()),
    ]
    return Table(
        [{"what": name, "value": str(value)} for name, value in rows if value not in (None, "")]
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
    for folder, stage in data.metrics.stages.items():
        if stage.makers:
            shards = ", ".join(f"{number:,} by {maker}" for maker, number in stage.makers.items())
            yield f"shards of {folder}, whose models or GPUs differ", shards
    for record in data.training:
        if record.result:
            yield f"data of {record.title}", record.result.dataset_sha256
            yield f"weights of {record.title}", record.result.trained_hash


def _efficacy(title: str, part: EfficacyPart | None) -> dict[str, str]:
    share, soft = (part.preferred, part.prob_preferred) if part else (None, None)
    return {
        title: percent(share.share if share else None),
        "95 % interval": percent_range(share.low, share.high) if share else MISSING,
        "mean label": number(soft.share if soft else None, 2),
    }


def _thoughts(stage: StageMetrics) -> dict[str, str]:
    share = stage.thoughts / stage.expected if stage.thoughts else None
    return {
        "rows with thoughts": percent(share),
        "thought tokens": number(stage.thought_tokens or None),
    }


def _missed_check(share: Estimate | None) -> dict[str, str]:
    if share is None:
        return {"left out by a check": MISSING}
    interval = percent_range(share.low, share.high)
    return {"left out by a check": f"{percent(share.share)} ({interval})"}


def _code(environment: dict[str, Any]) -> str | None:
    code = environment.get("code")
    if not isinstance(code, dict):
        return None
    return _with_hash(code.get("commit"), "with local changes" if code.get("changed") else None)


def _with_hash(name: Any, extra: Any) -> str | None:
    return None if not name else f"{name} · {extra}" if extra else str(name)
