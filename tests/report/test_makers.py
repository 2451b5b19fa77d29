"""The report says where shards of one stage come from different models or GPUs."""

from dataclasses import replace
from pathlib import Path

from pipeline.records import ResponseRow
from pipeline.report.source import read_run
from pipeline.report.tables import lineage_table
from pipeline.store.shards import publish
from tests.run.builders import make_run, write_rows

STAGE = "preference/sample"


def test_shards_of_two_kinds_of_gpu_are_named(tmp_path: Path) -> None:
    """Two shards on an H100 and one on an A100; with one kind no line is there."""
    run = make_run(tmp_path / "one")
    for index, gpu in enumerate(["H100", "H100", "A100"]):
        rows = [ResponseRow(row_id=f"r{index}", run_id="one")]
        manifest = write_rows(run, STAGE, rows, shard_index=index)
        publish(run.root, replace(manifest, made_by={"worker": "0", "gpu": gpu}))

    def line() -> object:
        cells = {row["what"]: row["value"] for row in lineage_table(read_run(run)).rows}
        return cells.get(f"shards of {STAGE}, whose models or GPUs differ")

    assert line() == "2 by ffffffffffff on H100, 1 by ffffffffffff on A100"
    (run.root / STAGE / "shard-00002.json").unlink()
    assert line() is None
