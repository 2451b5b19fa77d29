"""The figures of `benchmarks.peers`: what the server saw of a run, medians of turns, goals."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

Result = dict[str, Any]


def chats(calls: Sequence[Result]) -> list[Result]:
    """The calls that the model has to answer."""
    return [call for call in calls if call["path"] != "/tokenize"]


def seen(calls: Sequence[Result], started: float, ended: float) -> Result:
    """Times in seconds of a run from what the server saw; 0 requests where it saw none."""
    answered = [call for call in calls if call["end"] is not None]
    result: Result = {"wall_s": ended - started, "requests": len(calls)}
    if not answered:
        return result
    first, last = min(c["begin"] for c in answered), max(c["end"] for c in answered)
    busy = sum(call["end"] - call["begin"] for call in chats(answered))
    return {
        **result,
        "requests_s": last - first,
        "before_s": first - started,
        "after_s": ended - last,
        "in_flight": busy / max(last - first, 1e-9),
        "tokenize": len(calls) - len(chats(calls)),
    }


def paid_twice(before: Sequence[Result], after: Sequence[Result]) -> Result:
    """Calls answered before a kill and asked again after it, and their share of those answered."""
    answered = {(call["stage"], call["about"]) for call in before if call["status"] == 200}
    again = answered & {(call["stage"], call["about"]) for call in after}
    share = len(again) / len(answered) if answered else None
    return {"answered": len(answered), "paid_twice": len(again), "paid_twice_share": share}


def summary(results: Mapping[str, Mapping[str, Result]]) -> dict[str, Result]:
    """One line for each contender: medians of its turns, its kill and its failing prompt.

    Args:
        results: by contender, then by part (`turn-0`, `turn-1`, ..., `kill`, `poison`); a
            contender without turns has `error` alone.
    """
    table: dict[str, Result] = {}
    for name, parts in results.items():
        turns = [part for key, part in parts.items() if key.startswith("turn-")]
        keys = [key for key in (turns[0] if turns else ()) if key != "exit_code"]
        line: Result = {
            key: round(median(turn.get(key) or 0.0 for turn in turns), 2) for key in keys
        }
        if "error" in parts:
            line["error"] = parts["error"]["text"]
        if failed := [turn["exit_code"] for turn in turns if turn["exit_code"] != 0]:
            line["exit_codes"] = failed
        if kill := parts.get("kill"):
            share, line["lost_after_kill"] = kill["paid_twice_share"], kill["rows_lost"]
            # What did not finish has not paid yet.
            if kill["exit_code"] == 0 and share is not None:
                line["paid_twice_share"] = round(share, 4)
        if poison := parts.get("poison"):
            line["lost_to_one_prompt"] = poison["rows_lost"]
            line["tries_of_it"] = poison["tries"]
            if poison["exit_code"] == 0 and turns:
                line["delay_by_it_s"] = round(poison["wall_s"] - line["wall_s"], 2)
        table[name] = line
    return table


def goals(table: Mapping[str, Result]) -> dict[str, Result]:
    """The goals whose figures are there: value, limit, and whether it is met."""

    def of(name: str, key: str) -> float | None:
        line = table.get(name, {})
        return None if "exit_codes" in line else line.get(key)

    ours, alone, plain = (of(name, "requests_s") for name in ("ours", "alone", "plain"))
    walls = of("ours_prefect", "wall_s"), of("ours", "wall_s")
    shares = [of(name, "paid_twice_share") for name in ("ours", "ours_prefect")]
    known = [share for share in shares if share is not None]
    values = {
        "requests_over_alone": (ours / alone if ours and alone else None, 1.10),
        "requests_over_plain": (ours / plain if ours and plain else None, 1.0),
        "prefect_adds_s": (walls[0] - walls[1] if walls[0] and walls[1] else None, 3.0),
        "paid_twice_share": (max(known, default=None), 0.02),
        "delay_by_one_prompt_s": (of("ours", "delay_by_it_s"), 5.0),
    }
    return {
        name: {"value": round(value, 4), "limit": limit, "met": value <= limit}
        for name, (value, limit) in values.items()
        if value is not None
    }
