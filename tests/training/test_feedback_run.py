"""From users' thumbs to a policy: a run's data set, the training process, and the check of both."""

import dataclasses
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from pipeline.config.alarms import AlarmConfig
from pipeline.config.engines import VllmConfig
from pipeline.config.training import KtoConfig
from pipeline.data.dataset import load_dataset
from pipeline.data.verify import verify
from pipeline.run.context import RunContext, open_context
from pipeline.run.phases import (
    preference_chain,
    preference_dataset,
    supervised_chain,
    train_preference,
    tuned_model,
)
from pipeline.run.start import start_run
from pipeline.store import RunLock
from tests.run.builders import stored_json, write_recipe
from tests.sources.builders import write_lines

CONFIG = KtoConfig(
    device="cpu", max_steps=2, batch_size=4, min_weight=0.6, alarms=AlarmConfig(probe_prompts=0)
)


async def labeled_run(folder: Path, model: Path, *kinds: str) -> RunContext:
    """A run on the scripted engine with its own pairs left out, and one event of each kind;
    what trains it is the tiny model.
    """
    events = write_lines(
        folder / "events.jsonl",
        *(
            {"event": kind, "prompt": f"Users ask {i}?", "response": f"reply {i}"}
            for i, kind in enumerate(kinds)
        ),
    )
    listed = folder / "sources.yaml"
    listed.write_text(
        yaml.safe_dump(
            {
                "size": len(kinds),
                "sources": [
                    {"type": "feedback", "name": "app", "path": str(events), "weight": 1e6},
                    {"type": "run"},
                ],
            }
        )
    )
    recipe = write_recipe(
        folder, prompts=4, preference={"sources": str(listed)}, supervised={"enabled": False}
    )
    run = start_run(recipe, run_id="thumbs", runs_root_folder=folder / "out" / "runs")
    with RunLock(run.root):
        ctx = open_context(run)
        await supervised_chain(ctx)
        await preference_chain(ctx)
        preference_dataset(ctx)
    preference = ctx.config.preference.model_copy(update={"train": CONFIG})
    policy = VllmConfig(type="vllm", model=str(model))
    return dataclasses.replace(
        ctx, config=ctx.config.model_copy(update={"preference": preference, "policy": policy})
    )


async def test_thumbs_make_a_policy(tmp_path: Path, tiny_model: Path) -> None:
    """Two thumbs each way are trained on; the regenerate event is too weak for `min_weight`."""
    ctx = await labeled_run(
        tmp_path, tiny_model, "thumbs_up", "thumbs_down", "thumbs_up", "thumbs_down", "regenerate"
    )
    assert pq.read_table(ctx.run.dataset / "preference.parquet").num_rows == 0
    model = await train_preference(ctx)
    assert model is not None and model == tuned_model(ctx)
    assert (model / "model.safetensors").is_file()
    result = stored_json(ctx.run.training("preference") / "result.json")
    assert result["rows"] == {
        "read": 5,
        "not_ok": 0,
        "too_long": 0,
        "unclear": 0,
        "weak": 1,
        "undrawn": 0,
        "beaten": 0,
        "repeated": 0,
        "heldout": 0,
        "used": 4,
        "feedback": 4,
        "replies": {"read": 4, "contradicted": 0, "repeated": 0, "desirable": 2, "undesirable": 2},
    }
    manifest = load_dataset(ctx.run)
    assert manifest is not None
    assert result["feedback_sha256"] == manifest.sets["feedback"].sha256
    assert verify(ctx.run) == []
    log = (ctx.run.training("preference") / "train.log").read_text()
    assert "on 4 of 5 rows (0 too long; 2 good and 2 bad replies" in log
