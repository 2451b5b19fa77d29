"""A sample of pairs for the page: each with its label, both orders, and how its texts came about.

In:  shards of preference/pair, and those of judge, samples, critiques and revisions beside them
Out: plain dictionaries, at most `limit`, the same ones for the same run; packed, the form in which
     the page holds them

The sample is uniform over all comparisons, kept and dropped: those with the smallest hashes, so
that it depends neither on order nor on shard size.
"""

import base64
import heapq
import json
import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from pipeline.evaluation.shard_columns import (
    RowDict,
    conversations,
    grouped,
    read_columns,
    texts_by_id,
)
from pipeline.ids import uniform
from pipeline.store import Manifest, RunDir
from pipeline.store.shards import load_manifest, stage_manifests
from pipeline.store.stage_names import (
    CRITIQUE,
    INITIALS,
    LABELS,
    PAIRS,
    POOLED,
    PROMPTS,
    REVISE,
    SUPERVISED,
    stage_folder,
    stage_folders,
)

MAX_PAIRS = 10_000
MAX_TEXT = 4000
"""Characters of one text on the page; the page says how many more there are."""
MAX_HEAD = 200
"""Characters of a prompt in the list."""
CHUNK = 500
"""Pairs whose texts are unpacked together."""
INDEX = ("id", "status", "reason", "principle", "labeled", "label", "margin", "gap", "agree")
"""What lists and filters need of a pair."""
MAX_CHARACTERS = 60_000_000
"""Of all texts on the page: about 20 MiB of it. A run of long texts shows fewer pairs."""
MAX_CHAINS = 4
"""Revision chains shown for one prompt."""
PAIR_COLUMNS = (
    "row_id",
    "prompt_id",
    "judgment_id",
    "status",
    "reason",
    "comparison",
    "principle_id",
    "chosen",
    "rejected",
    "chosen_id",
    "rejected_id",
    "soft_label",
    "margin",
    "position_gap",
    "orders_agree",
)
JUDGE_COLUMNS = (
    "row_id",
    "first_id",
    "second_id",
    "prob_forward",
    "prob_swapped",
    "parts",
    "part_differences",
)


def sample_pairs(run: RunDir, *, seed: int = 0, limit: int = MAX_PAIRS) -> list[dict[str, Any]]:
    """The pairs to show, in an order that is random but always the same."""
    manifests = stage_manifests(run.root, PAIRS)
    ids = (
        row["row_id"]
        for manifest in manifests
        for row in read_columns(run.root, manifest.path, ["row_id"])
    )
    hashes = ((uniform("report", seed, row_id), row_id) for row_id in ids)
    place = {row_id: number for number, (_, row_id) in enumerate(heapq.nsmallest(limit, hashes))}
    rounds = len(stage_folders(run.root, SUPERVISED, REVISE))
    entries = [
        entry
        for manifest in manifests
        for entry in _entries(run.root, manifest, place.keys(), rounds)
    ]
    return within(sorted(entries, key=lambda entry: place[entry["id"]]), MAX_CHARACTERS)


def within(entries: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The first entries whose texts have at most `most` characters together, and always one."""
    sizes = (sum(map(len, _texts(entry))) for entry in entries)
    totals = list(accumulate(sizes))
    return list(entries[: max(1, bisect_right(totals, most))])


def _texts(entry: Mapping[str, Any]) -> Iterator[str]:
    yield from (turn["content"] for turn in entry["prompt"])
    yield from entry["texts"]
    for chain in entry["chains"]:
        yield chain["initial"]
        for step in chain["steps"]:
            yield step["critique"]
            yield step["revision"]


def packed(
    pairs: Sequence[Mapping[str, Any]], requests: Mapping[str, str]
) -> tuple[str, list[str]]:
    """Pairs and the requests of their principles for the page's script: an index, and chunks with
    the texts, each the base64 of deflated JSON.

    The index has what lists and filters need, so the page is there before a text is unpacked. A
    chunk is `{texts, pairs}`, and a pair names each text by its number in `texts`. Pairs of one
    prompt are side by side, as they share texts.
    """
    order = sorted(
        range(len(pairs)), key=lambda i: [turn["content"] for turn in pairs[i]["prompt"]]
    )
    groups = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
    places = {i: (c, n) for c, group in enumerate(groups) for n, i in enumerate(group)}
    rows = [
        {name: _short(pair[name]) for name in INDEX}
        | {
            "head": pair["prompt"][-1]["content"][:MAX_HEAD] if pair["prompt"] else "",
            "at": places[i],
        }
        for i, pair in enumerate(pairs)
    ]
    chunks = [_deflated(_chunk([pairs[i] for i in group])) for group in groups]
    return _deflated({"pairs": rows, "requests": requests}), chunks


def _chunk(pairs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    numbers: dict[str, int] = {}

    def number(text: str) -> int:
        return numbers.setdefault(text, len(numbers))

    rows = [
        {name: _short(value) for name, value in pair.items() if name not in INDEX}
        | {
            "prompt": [(turn["role"], number(turn["content"])) for turn in pair["prompt"]],
            "texts": [number(text) for text in pair["texts"]],
            "chains": [
                {
                    "of": chain["of"],
                    "initial": number(chain["initial"]),
                    "steps": [
                        step | {name: number(step[name]) for name in ("critique", "revision")}
                        for step in chain["steps"]
                    ],
                }
                for chain in pair["chains"]
            ],
        }
        for pair in pairs
    ]
    return {"texts": list(numbers), "pairs": rows}


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _deflated(content: Any) -> str:
    return base64.b64encode(zlib.compress(json.dumps(content).encode())).decode("ascii")


def cut(text: str | None) -> str:
    """The text, or its first MAX_TEXT characters and how many are missing."""
    text = text or ""
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]} … [{len(text) - MAX_TEXT:,} more characters]"


def _entries(
    root: Path, manifest: Manifest, drawn: Collection[str], rounds: int
) -> list[dict[str, Any]]:
    """The drawn pairs of one shard."""
    pairs = read_columns(root, manifest.path, PAIR_COLUMNS)
    rows = [row for row in pairs if row["row_id"] in drawn]
    if not rows:
        return []
    inputs = {str(Path(path).parent): path for path in manifest.inputs}
    prompts = conversations(root, inputs[PROMPTS]) if PROMPTS in inputs else {}
    labels = inputs.get(POOLED) or inputs.get(LABELS)
    judgments = read_columns(root, labels, JUDGE_COLUMNS) if labels else []
    judged = {judgment["row_id"]: judgment for judgment in judgments}
    texts = texts_by_id(root, list(manifest.inputs))
    chains = revision_chains(root, manifest.shard_index, {row["prompt_id"] for row in rows}, rounds)
    return [
        _entry(
            row,
            judged.get(row["judgment_id"]),
            prompts.get(row["prompt_id"], []),
            texts,
            chains.get(row["prompt_id"], []),
        )
        for row in rows
    ]


def _entry(
    row: RowDict,
    judged: RowDict | None,
    messages: list[dict[str, str]],
    texts: dict[str, str],
    chains: list[dict[str, Any]],
) -> dict[str, Any]:
    labeled = row["soft_label"] is not None
    first, second = (judged["first_id"], judged["second_id"]) if judged else ("", "")
    # Without a label nothing is chosen: the two texts are shown as first and second.
    sides = (row["chosen_id"], row["rejected_id"]) if labeled else (first, second)
    orders = both_orders(judged, row["chosen_id"]) if labeled and judged else None
    pair = (row["chosen"], row["rejected"]) if labeled else tuple(texts.get(i, "") for i in sides)
    return {
        "id": row["row_id"],
        "status": row["status"],
        "reason": row["reason"],
        "principle": row["principle_id"],
        "judgment": row["judgment_id"],
        "comparison": row["comparison"] or "",
        "prompt": [{"role": m["role"], "content": cut(m["content"])} for m in messages],
        "labeled": labeled,
        "texts": [cut(text) for text in pair],
        "ids": list(sides),
        "label": row["soft_label"],
        "margin": row["margin"],
        "gap": row["position_gap"],
        "agree": row["orders_agree"] if orders else None,
        "orders": orders,
        "parts": part_differences(judged, row["chosen_id"]) if labeled and judged else [],
        "chains": _relevant(chains, sides),
    }


def both_orders(judged: RowDict, chosen_id: str) -> list[float] | None:
    """P(chosen preferred) in slot A, and in slot B; None without orders.

    `prob_forward` is P(slot A) with `first` in A, `prob_swapped` with `second` in A.
    """
    forward, swapped = judged["prob_forward"], judged["prob_swapped"]
    if forward is None or swapped is None:
        return None
    if chosen_id == judged["first_id"]:
        return [forward, 1.0 - swapped]
    return [swapped, 1.0 - forward]


def part_differences(judged: RowDict, chosen_id: str) -> list[list[Any]]:
    """Name and value of chosen minus value of rejected of each part, the largest first."""
    if not judged["part_differences"]:
        return []
    sign = 1 if chosen_id == judged["first_id"] else -1
    values = zip(judged["parts"], judged["part_differences"], strict=True)
    parts = [[name, sign * value] for name, value in values]
    return sorted(parts, key=lambda part: -abs(part[1]))


def revision_chains(
    root: Path, shard_index: int, prompt_ids: set[str], rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """Initial responses with their critiques and revisions, by prompt."""
    initials = _rows(root, INITIALS, shard_index, ("row_id", "prompt_id", "response"))
    chains = {
        row["row_id"]: {
            "prompt_id": row["prompt_id"],
            "initial": cut(row["response"]),
            "ids": [row["row_id"]],
            "steps": [],
        }
        for row in initials
        if row["prompt_id"] in prompt_ids
    }
    for number in range(1, rounds + 1):
        columns: tuple[str, ...] = ("row_id", "critique")
        rows = _rows(root, stage_folder(SUPERVISED, CRITIQUE, number), shard_index, columns)
        critiques = {row["row_id"]: row["critique"] for row in rows}
        columns = ("row_id", "initial_id", "critique_id", "principle_id", "revision", "status")
        for row in _rows(root, stage_folder(SUPERVISED, REVISE, number), shard_index, columns):
            if chain := chains.get(row["initial_id"]):
                chain["ids"].append(row["row_id"])
                chain["steps"].append(
                    {
                        "round": number,
                        "principle": row["principle_id"],
                        "critique": cut(critiques.get(row["critique_id"])),
                        "revision": cut(row["revision"]),
                        "status": row["status"],
                    }
                )
    return grouped((chain for chain in chains.values() if chain["steps"]), "prompt_id")


def _relevant(chains: list[dict[str, Any]], sides: Iterable[str]) -> list[dict[str, Any]]:
    """Chains that a compared text belongs to, with its name; else those of the same prompt."""
    names = dict(zip(sides, ("chosen", "rejected"), strict=True))
    own = [
        {"of": "/".join(sorted({names[i] for i in chain["ids"] if i in names})), **chain}
        for chain in chains
    ]
    linked = [chain for chain in own if chain["of"]]
    return [
        {"of": chain["of"], "initial": chain["initial"], "steps": chain["steps"]}
        for chain in (linked or own)[:MAX_CHAINS]
    ]


def _rows(root: Path, folder: str, shard_index: int, columns: Sequence[str]) -> list[RowDict]:
    manifest = load_manifest(root, folder, shard_index)
    return read_columns(root, manifest.path, columns) if manifest else []
