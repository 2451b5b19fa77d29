"""Does `pair.max_error` hold what it says? A weak judge on comparisons whose truth is known.

    python -m benchmarks.error_bound [--quick]

The pocket model with noise on its weights judges comparisons of the pocket world, in both orders.
Again and again a part of them is drawn as known labels, the threshold is chosen on these, and the
error of the labels at or above it is counted on all others. The last line is one JSON object:

    accuracy    of all labels, without a bound
    over        share of the draws whose error on the other comparisons exceeds `max_error`;
                at most 1 - confidence is stated
    error       mean error at or above the threshold, on the other comparisons
    coverage    mean share of the other comparisons at or above it
    refused     draws in which no threshold passed

Does not: test labels of a model on comparisons that differ from the known ones.
"""

import argparse
import asyncio
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.label_methods import MODEL, damage
from benchmarks.pocket_cases import draw_comparisons
from benchmarks.pocket_quality import prob_first
from pipeline.config.engines import VllmConfig
from pipeline.config.labeling import PairConfig
from pipeline.engines import open_engine
from pipeline.errors import ConfigError
from pipeline.labeling.known_labels import KnownLabel, bound_error
from pipeline.soft_labels import outcome

NUM_COMPARISONS, QUICK_COMPARISONS = 4000, 400
NUM_KNOWN, QUICK_KNOWN = 500, 200
DRAWS = 200
NOISE = 0.7
"""Noise on the judge's weights, in standard deviations of each matrix."""
MAX_ERRORS = (0.02, 0.05, 0.1)


async def judge(model: Path, count: int, seed: int) -> list[KnownLabel]:
    """The weak judge's label of the better response, one comparison per context."""
    items = draw_comparisons(count, "differ", seed, reworded=True)
    config = VllmConfig(type="vllm", model=str(model), device="cpu")
    async with open_engine(config) as engine:
        orders = await asyncio.gather(
            *(prob_first(engine, item, f"c{n}") for n, item in enumerate(items))
        )
    labels = []
    for number, (item, (forward, swapped)) in enumerate(zip(items, orders, strict=True)):
        first = (forward + swapped) / 2
        labels.append(
            KnownLabel(
                prompt_id=f"comparison {number}",
                label=first if item.truth > 0 else 1 - first,
                orders_agree=(forward - 0.5) * (swapped - 0.5) > 0,
            )
        )
    return labels


def resample(
    labels: Sequence[KnownLabel], num_known: int, pair: PairConfig
) -> dict[str, float | None]:
    """Figures over `DRAWS` draws of the known labels."""
    rng, refused = random.Random(0), 0
    errors, coverages = [], []
    for _ in range(DRAWS):
        drawn = rng.sample(labels, len(labels))
        known, others = drawn[:num_known], drawn[num_known:]
        try:
            bound = bound_error(known, pair)
        except ConfigError:
            refused += 1
            continue
        kept = [x for x in others if max(x.label, 1 - x.label) >= bound.least_label]
        errors.append(sum(x.label < 0.5 for x in kept) / len(kept))
        coverages.append(len(kept) / len(others))
    assert pair.max_error is not None
    return {
        "over": sum(error > pair.max_error for error in errors) / DRAWS,
        "error": round(fmean(errors), 4) if errors else None,
        "coverage": round(fmean(coverages), 4) if coverages else None,
        "refused": refused / DRAWS,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    count = QUICK_COMPARISONS if quick else NUM_COMPARISONS
    num_known = QUICK_KNOWN if quick else NUM_KNOWN
    with tempfile.TemporaryDirectory(prefix="error-bound-") as folder:
        damage(MODEL, Path(folder) / "weak", NOISE)
        labels = asyncio.run(judge(Path(folder) / "weak", count, seed=0))
    accuracy = fmean(outcome(x.label) for x in labels)
    print(f"{len(labels)} labels, {accuracy:.3f} of them right; {num_known} known in each draw")
    rows = {}
    for max_error in MAX_ERRORS:
        pair = PairConfig(max_error=max_error, known_labels=Path("known.json"), tie_width=0.0)
        rows[f"{max_error:g}"] = resample(labels, num_known, pair)
        print(f"max_error {max_error:g}: {rows[f'{max_error:g}']}")
    print(
        json.dumps(
            {
                "labels": len(labels),
                "accuracy": round(accuracy, 4),
                "known": num_known,
                "draws": DRAWS,
                "confidence": PairConfig().error_confidence,
                "by_max_error": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
