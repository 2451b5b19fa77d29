"""Does a policy of `method: dpa` follow the direction that it is asked for?

In:  shards of evaluation/score-<n>, the ratings of its replies in direction n
Out: the entry `directions` of metrics.json
"""

from pathlib import Path

from pipeline.config.labeling import PreferenceConfig
from pipeline.config.training import DpaConfig
from pipeline.evaluation.shard_columns import grouped, iter_shards
from pipeline.labeling.directions import DirectionMetrics
from pipeline.stats import Tally
from pipeline.store.stage_names import EVALUATION, SCORE, stage_folder

COLUMNS = ("prompt_id", "status", "parts", "values")


def measure_directions(
    root: Path, config: PreferenceConfig, *, draws: int, seed: int
) -> tuple[DirectionMetrics, ...]:
    """The mean ratings at each measured angle; empty where none was measured."""
    if not isinstance(config.train, DpaConfig):
        return ()
    best = len(config.score.options)
    found = []
    for number, angle in enumerate(config.train.measured_angles, start=1):
        tallies = {name: Tally() for name in config.train.attributes}
        for _, rows in iter_shards(root, stage_folder(EVALUATION, SCORE, number), COLUMNS):
            for replies in grouped((r for r in rows if r["status"] == "ok"), "prompt_id").values():
                for name, *values in zip(
                    replies[0]["parts"], *(reply["values"] for reply in replies), strict=True
                ):
                    tallies.setdefault(name, Tally()).add(values)
        if any(tally.counts for tally in tallies.values()):
            ratings = {
                name: tally.bootstrap(draws=draws, seed=seed, most=best)
                for name, tally in tallies.items()
            }
            found.append(DirectionMetrics(angle=angle, ratings=ratings))
    return tuple(found)
