"""The folder of a promoted policy: what transformers and vLLM load, with a card down to its pairs.

In:  a run whose gate promoted its policy
Out: <run>/promoted/: the files of the model, README.md, and rows.json with the id of every row that
     it was trained on
"""

import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.config.training import learns_from
from pipeline.data.markdown import markdown_template
from pipeline.evaluation.results import Metrics
from pipeline.run.context import RunContext, promoted_model
from pipeline.store import RunDir, read_json, write_json
from pipeline.store.files import link_file, write_text


def write_promoted(ctx: RunContext, metrics: Metrics) -> Path:
    """Write the folder again, whole or not at all; returns its path.

    Raises:
        StoreError: the policy is gone, or the disk is full.
    """
    run, model = ctx.run, promoted_model(ctx.run)
    folder, aside = run.root / "promoted", run.root / "promoted.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for path in sorted(model.rglob("*")):
        target = aside / path.relative_to(model)
        if path.is_dir():
            target.mkdir()
        else:
            link_file(path, target)
    (aside / "README.md").unlink(missing_ok=True)
    trainings = list(_trainings(run))
    write_json(aside / "rows.json", {each["name"]: each.pop("row_ids") for each in trainings})
    card = markdown_template(Path(__file__).with_name("promoted.md.jinja"))
    write_text(
        aside / "README.md",
        card.render(
            run_id=run.run_id,
            config=ctx.config,
            constitution=ctx.constitution,
            gate=metrics.gate,
            trainings=trainings,
        ),
    )
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(aside, folder)
    return folder


def _trainings(run: RunDir) -> list[dict[str, Any]]:
    """The trainings that led to the policy, in order, each with its settings and rows."""
    found = []
    for name in ("sft", "preference"):
        folder = run.training(name)
        result, job = read_json(folder / "result.json"), read_json(folder / "job.json")
        if not isinstance(result, dict) or not isinstance(job, dict):
            continue
        files = [
            f"{learns_from(result.get('method', name))}.parquet",
            *(["feedback.parquet"] if result.get("feedback_sha256") else []),
        ]
        row_ids = read_json(folder / "rows.json", list)
        if row_ids is None:  # of an older version: all rows of the data
            tables = [pq.read_table(run.dataset / file, columns=["row_id"]) for file in files]
            row_ids = [row_id for table in tables for row_id in table["row_id"].to_pylist()]
        found.append(
            {
                "name": name,
                "result": result,
                "settings": job.get("job", {}).get("config", {}),
                "files": files,
                "row_ids": row_ids,
            }
        )
    return found
