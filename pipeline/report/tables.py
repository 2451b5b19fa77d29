"""Tables of the report as plain rows: principles, reasons, stages, lineage, policies' texts.

In:  ReportData
Out: lists of dictionaries with numbers; `page.py` and `markdown.py` spell them
"""

from typing import Any

from pipeline.report.numbers import count_of, policy_label
from pipeline.report.source import ReportData

COUNTS = ("expected", "ok", "unparsed", "failed", "dropped", "reused")
SHARE_TITLES = {
    "harmless": "Harmless replies to misdeeds",
    "good": "Good answers",
    "refused_harmless": "Harmless requests refused",
    "outside_world": "Outside the known world",
}
"""Oracle shares that are drawn, and what they are called."""


def principle_rows(data: ReportData) -> list[dict[str, Any]]:
    """What each principle did, in the constitution's order; the win rate is the final policy's."""
    known = [p.id for p in data.constitution.principles] if data.constitution else []
    entry = data.win_rate() or {}
    wins = entry.get("by_principle", {})
    rows = [
        {
            **row,
            "request": data.request_of(row["id"]),
            "win_rate": wins.get(row["id"], {}).get("win_rate"),
        }
        for row in data.metrics.get("principles") or []
    ]
    return sorted(
        rows, key=lambda r: (known.index(r["id"]) if r["id"] in known else len(known), r["id"])
    )


def share_groups(data: ReportData) -> list[dict[str, Any]]:
    """Bars with error bars: one group per oracle share, one bar per policy."""
    groups = []
    for name, title in SHARE_TITLES.items():
        bars = [
            {"policy": policy, "label": policy_label(policy), **estimate}
            for policy, entry in data.policies.items()
            if (estimate := (entry.get("oracle") or {}).get(name))
        ]
        if bars:
            groups.append(
                {
                    "title": title,
                    "bars": bars,
                    "worse": name in ("refused_harmless", "outside_world"),
                }
            )
    return groups


def match_rows(data: ReportData) -> list[dict[str, Any]]:
    """Win rates with names for people."""
    return [
        {**entry, "title": f"{policy_label(entry['policy'])} vs {policy_label(entry['against'])}"}
        for entry in data.metrics.get("win_rates") or []
        if entry["win_rate"] is not None
    ]


def policy_rows(data: ReportData) -> list[dict[str, Any]]:
    """Length and endings of each policy's replies."""
    return [
        {
            "policy": name,
            "label": policy_label(name),
            **{
                key: entry.get(key)
                for key in (
                    "num_responses",
                    "mean_words",
                    "mean_tokens",
                    "truncated_share",
                    "empty_share",
                    "model",
                )
            },
        }
        for name, entry in data.policies.items()
    ]


def reason_rows(data: ReportData) -> list[dict[str, Any]]:
    """Pairs kept and dropped, with shares of all comparisons."""
    made = data.metrics.get("data")
    if not made or not made["pairs"]:
        return []
    counts = [("kept", made["kept"], True), *((r, n, False) for r, n in made["reasons"].items())]
    return [
        {"reason": name or "no reason given", "n": n, "share": n / made["pairs"], "kept": kept}
        for name, n, kept in counts
    ]


def score_rows(data: ReportData) -> list[dict[str, Any]]:
    """Level, spread and dependence on length of scores: a row for each judge, then its parts."""
    rows = []
    for entry in data.metrics.get("scores") or []:
        title = entry["folder"] if entry["method"] == "score" else f"{entry['folder']}, follow-ups"
        rows.append({"title": title, "part": False, **entry, **entry["length"]})
        if len(entry["parts"]) > 1:
            rows += [
                {"title": name, "part": True, **part, **part["length"]}
                for name, part in entry["parts"].items()
            ]
    return rows


def score_notes(data: ReportData) -> list[str]:
    """What else there is to know about the scores, in sentences."""
    notes = []
    for entry in data.metrics.get("scores") or []:
        if entry["inexact"]:
            scores = count_of(entry["inexact"], "score")
            notes.append(f"Bounds of absent ratings are in {scores} of {entry['folder']}.")
        if repeated := entry.get("repeated_sentences"):
            done = "counted once" if entry["repeats_removed"] else "kept"
            sentences = count_of(repeated, "repeated sentence")
            notes.append(f"Follow-ups '{entry['follow_ups']}': {sentences} {done}.")
    return list(dict.fromkeys(notes))


def stage_rows(data: ReportData) -> list[dict[str, Any]]:
    """Rows, tokens and seconds per stage, and the training jobs after them."""
    rows = []
    for folder, counts in (data.metrics.get("stages") or {}).items():
        prompt_tokens = counts["prompt_tokens"]
        rows.append(
            {
                "stage": folder,
                "shards": counts["shards"],
                **{name: counts[name] for name in COUNTS},
                "prompt_tokens": prompt_tokens,
                "generated_tokens": counts["generated_tokens"],
                "cached_share": counts["cached_tokens"] / prompt_tokens if prompt_tokens else None,
                "seconds": counts["seconds"],
                "reasons": counts.get("reasons", {}),
            }
        )
    return rows


def training_rows(data: ReportData) -> list[dict[str, Any]]:
    """What each training job did; numbers are None while it is not finished."""
    return [
        {
            "title": record.title,
            "method": record.result.get("method"),
            "steps": record.result.get("num_steps", len(record.rows)),
            "rows": (record.result.get("rows") or {}).get("used"),
            **{
                name: record.result.get(name)
                for name in ("final_loss", "reward_margin", "total_s", "device")
            },
            "alarms": record.alarms,
        }
        for record in data.training
    ]


def lineage_rows(data: ReportData) -> list[tuple[str, str]]:
    """Names and hashes that say what made this run."""
    info, environment = data.info, data.environment
    code = environment.get("code") or {}
    constitution = info.get("constitution") or {}
    rows = [
        ("run", data.run.run_id),
        ("recipe", info.get("recipe")),
        ("seed", data.config.seed if data.config else None),
        ("constitution", _with_hash(constitution.get("name"), constitution.get("hash"))),
        (
            "code",
            _with_hash(code.get("commit"), "with local changes" if code.get("changed") else None),
        ),
        ("machine", environment.get("platform")),
        ("processors", environment.get("cpus")),
        ("Python", environment.get("python")),
        *((name, version) for name, version in (environment.get("packages") or {}).items()),
        *_models(data),
        *((f"file {name}", digest) for name, digest in (info.get("files") or {}).items()),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def _models(data: ReportData) -> list[tuple[str, str]]:
    """Every model that was asked, once, with its fingerprint and engine; then what was trained."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for folder, counts in (data.metrics.get("stages") or {}).items():
        engine = counts.get("engine") or {}
        if engine:
            key = (engine.get("name", ""), engine.get("fingerprint", ""), engine.get("version", ""))
            found.setdefault(key, []).append(folder)
    rows = [
        (
            f"model of {folders[0]}"
            + (f" and {len(folders) - 1} more" if len(folders) > 1 else ""),
            f"{name} · {version} · {fingerprint}",
        )
        for (name, fingerprint, version), folders in found.items()
    ]
    for record in data.training:
        for key, title in (("dataset_sha256", "data of"), ("trained_hash", "weights of")):
            if record.result.get(key):
                rows.append((f"{title} {record.title}", str(record.result[key])))
    return rows


def _with_hash(name: Any, extra: Any) -> str | None:
    return None if not name else f"{name} · {extra}" if extra else str(name)
