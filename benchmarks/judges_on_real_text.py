"""What labels real text best on a laptop: a prompted judge, follow-ups, or a reward model?

    python -m benchmarks.judges_on_real_text PAIRS RUN [--way NAME] [--train-pairs N] [--measure N]
                                             [--keep FOLDER]

PAIRS is a file of hh-rlhf, such as harmless-base/test.jsonl.gz: what people preferred, and did not
always agree on. RUN is the folder of a run whose constitution has checks, such as one of `make
demo-real`: of two of its texts one holds a principle and one does not, so the truth is known. Half
of the prompts of each are for training; the others are measured on, the same for every labeler.

    judge          SmolLM2-135M-Instruct compares in both orders, asked as --way names it (the ways
                   of `rlaif judge-tune`): checked texts under the principle that decides them,
                   people's pairs under one question
    follow_up      the likelihood that it gives to pleased and displeased users
    reward_model   the same weights with a new head, trained on the training prompts of both kinds
    longer, shorter, coin   rules that read nothing

Needs models/smollm2/weights (`python -m models.smollm2.build`). `--quick` trains two steps and
measures six pairs of each kind. With `--keep`, a stopped call goes on where it was. The last line
is one JSON object: for each kind of comparison and each labeler the accuracy (a row without a
label is wrong) with its 95 % interval and n.

Does not: take long conversations, which would keep two cores busy for hours, or say anything about
larger models.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline.config.alarms import AlarmConfig
from pipeline.config.overrides import override
from pipeline.config.paths import PROJECT_ROOT
from pipeline.config.training import LoraConfig, RewardModelTrainingConfig
from pipeline.ids import uniform
from pipeline.judge_eval.checked import checked_comparisons
from pipeline.judge_eval.metrics import EvaluationMetrics
from pipeline.judge_eval.request import Request
from pipeline.judge_eval.run import prepare_evaluation, run_evaluation
from pipeline.judge_eval.tune import WAYS
from pipeline.sources.config import TranscriptsSource
from pipeline.sources.importing import import_source
from pipeline.sources.rows import LabeledRow
from pipeline.stats import Estimate
from pipeline.store import RunDir
from pipeline.training.job import TrainingJob
from pipeline.training.launch import launch

MODEL = PROJECT_ROOT / "models/smollm2/weights"
PROMPTS = PROJECT_ROOT / "prompts/sets/everyday.jsonl"
WORDS = 100
"""Most words of a conversation with its longer reply."""
TRAINED_SHARE = 0.5
"""Share of the prompts to train on."""
FOLLOW_UPS = 1
"""Pleased and displeased sentences of each category; of those that ship, each has 8 or 10."""
QUICK = (8, 6)
"""Pairs to train on and to measure on with `--quick`."""
QUESTION = "Which response is less harmful and more honest?"
"""What the judge is asked about people's pairs."""
RULES = ("longer", "shorter", "coin")

Recipe = dict[str, Any]


def is_short(row: LabeledRow) -> bool:
    """Whether a comparison is one for two cores."""
    said = sum(len(message.content.split()) for message in row.messages)
    longer = max(len(text.split()) for text in (row.chosen, row.rejected))
    return said + longer <= WORDS and row.chosen != row.rejected


def is_training(row: LabeledRow) -> bool:
    """Whether its prompt is one to train on."""
    return uniform("side", row.prompt_id) < TRAINED_SHARE


def drawn(rows: Sequence[LabeledRow], most: int) -> list[LabeledRow]:
    """At most so many rows, by hash."""
    return sorted(rows, key=lambda row: uniform("order", row.row_id))[:most]


async def train(rows: Sequence[LabeledRow], folder: Path, *, quick: bool) -> Path:
    """The reward model's folder."""
    dataset = folder / "pairs.parquet"
    table = [
        {
            "row_id": row.row_id,
            "messages": [message.as_dict() for message in row.messages],
            "chosen": row.chosen,
            "rejected": row.rejected,
            "soft_label": 1.0,
        }
        for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(table), dataset)
    config = RewardModelTrainingConfig(
        learning_rate=3e-4,
        lora=LoraConfig(r=16, alpha=32),
        max_length=384,
        max_steps=2 if quick else None,
        heldout_share=0,
        alarms=AlarmConfig(probe_prompts=0),
    )
    job = TrainingJob(config=config, model=MODEL, dataset=dataset, output_dir=folder / "training")
    result = await launch(job, on_line=lambda line: print(line, flush=True))
    return result.model_dir


def write_recipe(folder: Path, name: str, changes: Mapping[str, Any]) -> Path:
    """A recipe of which only the labeler is used."""
    principle = {
        "id": "asked",
        "critique_request": QUESTION,
        "revision_request": QUESTION,
        "comparison_request": QUESTION,
        # For a way with exemplars, which are drawn by tag.
        "tags": ["harmlessness", "honesty"],
    }
    constitution, path = folder / f"{name}-constitution.yaml", folder / f"{name}.yaml"
    constitution.write_text(yaml.safe_dump({"name": name, "principles": [principle]}))
    values = {
        "name": name,
        "constitution": str(constitution),
        "prompts": {"train": [str(PROMPTS)]},
        "policy": {"type": "vllm", "model": str(MODEL), "max_context": 2048, "kv_cache_gib": 1},
        **changes,
    }
    path.write_text(yaml.safe_dump(values))
    return path


def few_follow_ups(folder: Path) -> Path:
    """The first sentences of each category of both sets that ship."""
    categories = []
    for name in ("helpfulness", "harmlessness"):
        content = yaml.safe_load((PROJECT_ROOT / f"prompts/follow_ups/{name}.yaml").read_text())
        for category in content["categories"]:
            sides = {side: category[side][:FOLLOW_UPS] for side in ("positive", "negative")}
            categories.append({"id": category["id"], **sides})
    path = folder / "follow_ups.yaml"
    path.write_text(yaml.safe_dump({"name": "few", "categories": categories}))
    return path


def labelers(way: str, reward_model: Path, folder: Path) -> dict[str, Recipe]:
    """What each labeler changes in a recipe."""
    engine = {"type": "reward_model", "model": str(reward_model)}
    limits = {"max_context": 1024, "kv_cache_gib": 1}
    scored = {"labeler": "reward_model", "reward_model": {"engine": engine | limits}}
    asked = {"labeler": "follow_up", "follow_up": {"follow_ups": str(few_follow_ups(folder))}}
    return {
        "judge": yaml.safe_load(override("{}", WAYS[way], "the way")),
        "reward_model": {"preference": scored},
        "follow_up": {"preference": asked},
    }


def rounded(estimate: Estimate | None) -> dict[str, float] | None:
    """A share with its interval and n."""
    return {key: round(value, 3) for key, value in asdict(estimate).items()} if estimate else None


async def measure(request: Request, keep: set[str]) -> EvaluationMetrics:
    """One labeler on the rows with these ids."""
    evaluation = prepare_evaluation(request)
    items = [item for item in evaluation.items if item.row.row_id in keep]
    return await run_evaluation(replace(evaluation, items=items))


async def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Accuracy by kind of comparison and labeler."""
    most_trained, most_measured = (
        QUICK if arguments.quick else (arguments.train_pairs, arguments.measure)
    )
    source = TranscriptsSource(name="hh", path=arguments.pairs.resolve(), drop_inline_headers=True)
    run = RunDir(arguments.run.resolve())
    rows = {
        "people": [row for row in import_source(source, seed=0).usable if is_short(row)],
        "checked": list(checked_comparisons(run).imported.usable),
    }
    trained, measured = {}, {}
    for kind, each in rows.items():
        trained[kind] = drawn([row for row in each if is_training(row)], most_trained)
        rest = drawn([row for row in each if not is_training(row)], most_measured)
        measured[kind] = {row.row_id for row in rest}
        print(f"{kind}: {len(each)} pairs, {len(trained[kind])} to train on, {len(rest)} measured")
    started = time.monotonic()
    reward_model = await train(
        [row for each in trained.values() for row in each], folder, quick=arguments.quick
    )
    seconds = time.monotonic() - started
    table: dict[str, dict[str, Any]] = {kind: {} for kind in rows}
    for labeler, changes in labelers(arguments.way, reward_model, folder).items():
        path = write_recipe(folder, labeler.replace("_", "-"), changes)
        requests = {
            "people": Request(path, (source,), name=f"people-{labeler}"),
            "checked": Request(path, (), checked=run, name=f"checked-{labeler}"),
        }
        for kind, request in requests.items():
            metrics = await measure(request, measured[kind])
            rules = {name: rounded(getattr(metrics.baselines, name)) for name in RULES}
            table[kind] |= {labeler: rounded(metrics.judges[0].figures.accuracy_all), **rules}
            print(kind, labeler, table[kind][labeler], flush=True)
    counts = {kind: len(each) for kind, each in trained.items()}
    return {**table, "way": arguments.way, "trained_on": counts, "training_s": round(seconds)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pairs", type=Path, help="a file of hh-rlhf")
    parser.add_argument("run", type=Path, help="folder of a run whose constitution has checks")
    parser.add_argument("--way", choices=list(WAYS), default="prefix", help="of asking the judge")
    parser.add_argument("--train-pairs", type=int, default=150, help="of each kind, at most")
    parser.add_argument("--measure", type=int, default=150, help="of each kind, at most")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for what was trained and asked")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="judges-") as temporary:
        folder = (arguments.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["RLAIF_OUTPUTS"] = str(folder / "outputs")
        started = time.monotonic()
        table = asyncio.run(compare(arguments, folder))
        print(json.dumps({**table, "minutes": round((time.monotonic() - started) / 60, 1)}))


if __name__ == "__main__":
    main()
