"""One judge's figures, from the shards of a run."""

from pathlib import Path

from pipeline.audits.judge_audit import audit_judge
from pipeline.config.audits import LabelAuditConfig
from pipeline.store.stage_names import LABELS
from tests.run.builders import whole_run


async def test_texts_of_a_cluster_are_found(tmp_path: Path) -> None:
    """Files of a worker's attempt have names that their manifests do not share."""
    run = await whole_run(tmp_path / "r1")
    config = LabelAuditConfig()
    before = audit_judge(run.root, LABELS, config, tie_width=0.02)
    for manifest in (run.root / "preference" / "sample").glob("shard-*.json"):
        old = f"preference/sample/{manifest.stem}.parquet"
        new = f"preference/sample/{manifest.stem}.1f0c9a2b.parquet"
        (run.root / old).rename(run.root / new)
        for path in [manifest, *(run.root / "preference").glob(f"judge*/{manifest.name}")]:
            path.write_text(path.read_text().replace(old, new))
    assert audit_judge(run.root, LABELS, config, tie_width=0.02) == before
