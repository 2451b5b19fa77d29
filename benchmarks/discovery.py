"""Does `rlaif constitution discover` recover the principle that made the labels?

Pairs of the pocket world are labeled by the oracle under one attribute, which is then forgotten.
The pocket model votes on one principle for each attribute, and the found constitution should be the
one that made the labels. The conversations are in ways of asking that training never saw.

    python -m benchmarks.discovery [--quick]

The last line is one JSON object.
"""

import argparse
import asyncio
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.pocket_cases import draw_comparisons
from models.pocket import principles
from models.pocket.oracle import ATTRIBUTES
from pipeline.discover.run import Discovery, Request, discover
from pipeline.sources.config import PairsSource
from pipeline.stats import Estimate

RECIPE = Path(__file__).parents[1] / "flows/configs/demo.yaml"


def write_labels(path: Path, attribute: str, number: int) -> Path:
    """Pairs that differ in one attribute, the better one chosen."""
    drawn = draw_comparisons(number * len(ATTRIBUTES), "differ", seed=5)
    lines = []
    for each in (c for c in drawn if c.attribute == attribute):
        chosen, rejected = (each.first, each.second)[:: 1 if each.truth > 0 else -1]
        lines.append({"prompt": each.conversation, "chosen": chosen, "rejected": rejected})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def candidates() -> dict[str, str]:
    """One comparison request for each attribute."""
    rng = random.Random(5)
    return {name: principles.write_request("comparison", name, rng) for name in ATTRIBUTES}


async def measure(folder: Path, attribute: str, number: int) -> dict[str, Any]:
    """What is found in the labels of one attribute."""
    requests = candidates()
    rules = folder / "rules.txt"
    rules.write_text("\n".join(requests.values()) + "\n")
    path = write_labels(folder / f"{attribute}.jsonl", attribute, number)
    source = PairsSource(type="pairs", name=attribute, path=path)
    found: Discovery = await discover(
        Request(RECIPE, (source,), rules, limit=number), lambda line: None
    )
    names = {text.rstrip("."): name for name, text in requests.items()}
    kept = [names[each.name] for each in found.kept]
    return {
        "kept": kept,
        "first": bool(kept) and kept[0] == attribute,
        "found": _share(found.found),
        "given": _share(found.given),
        "alone": _share(found.alone),
        "luck": round(found.luck, 3),
    }


def _share(share: Estimate | None) -> float | None:
    return round(share.share, 3) if share else None


def main() -> None:
    """Measure each attribute, print a line each and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="60 pairs each instead of 200")
    number = 60 if parser.parse_args().quick else 200
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["RLAIF_OUTPUTS"] = scratch
        for attribute in ATTRIBUTES:
            results[attribute] = asyncio.run(measure(Path(scratch), attribute, number))
            print(f"{attribute}: {results[attribute]}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
