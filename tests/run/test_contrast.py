"""Whole runs whose pairs come from several policies, or have labels without a judge."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.config import load_config
from pipeline.data.lineage import trace
from pipeline.data.verify import verify
from pipeline.errors import ConfigError
from pipeline.store import RunDir
from pipeline.store.shards import stage_manifests, stage_rows
from tests.flows.labelers import OTHER_JUDGE, OTHER_POLICY
from tests.run.builders import write_recipe
from tests.run.test_labelers import finished, started

POLICY = {"type": "scripted", "script": "tests.run.scripted_world:make_engine"}
ASSUMED: dict[str, Any] = {"labeler": "assumed", "assumed": {"label_accuracy": 0.8}}
WEAKER = {"weaker": {"engine": OTHER_POLICY}}
SAMPLES, WEAKER_SAMPLES = "preference/sample", "preference/sample-weaker"


def pairs_of(run: RunDir) -> list[dict[str, Any]]:
    """The rows of the preference set."""
    rows: list[dict[str, Any]] = pq.read_table(run.dataset / "preference.parquet").to_pylist()
    return rows


def writers(run: RunDir) -> dict[str, str]:
    """Folder of each response and revision by row id."""
    before = ("supervised/sample", "supervised/revise-1")
    folders = (*before, SAMPLES, WEAKER_SAMPLES, "preference/sample-stronger")
    return {row.row_id: folder for folder in folders for row in stage_rows(run.root, folder)}


async def test_revisions_are_preferred_without_a_judge(tmp_path: Path) -> None:
    """ln(0.8 / 0.2) = 1.3863; no call of the judge, no principle, and the row says so."""
    preference = {"comparisons": "revision_vs_initial", **ASSUMED}
    run = await finished(tmp_path, preference, evaluation={"enabled": False})
    written, pairs = writers(run), pairs_of(run)
    assert len(pairs) == 10
    for pair in pairs:
        assert written[pair["chosen_id"]] == "supervised/revise-1"
        assert written[pair["rejected_id"]] == "supervised/sample"
        assert pair["soft_label"] == 0.8 and pair["margin"] == pytest.approx(1.3863, abs=1e-4)
        assert pair["principle_id"] == "" and pair["position_gap"] is None
    rows = list(stage_rows(run.root, "preference/judge"))
    assert {(row.method, row.model_fingerprint, row.prob_first) for row in rows} == {
        ("assumed", "", 0.8)
    }
    manifests = stage_manifests(run.root, "preference/judge")
    assert all(not m.engine and not m.counts.prompt_tokens for m in manifests)
    card = " ".join((run.dataset / "README.md").read_text().split())
    assert "They were assumed, not judged: each revision is taken for better" in card
    assert "| revision_vs_initial | assumed | revisions | initial responses | 10 | 10 |" in card
    assert "not people's" not in card
    page = run.report.read_text()
    assert "No judge compared the responses" in page and "is judged in both orders" not in page
    assert not verify(run)


async def test_delta_prefers_the_stronger_policy(tmp_path: Path) -> None:
    preference = {"comparisons": "delta", "sample": {"num_samples": 2}, **ASSUMED}
    run = await finished(tmp_path, preference, policies=WEAKER)
    written, pairs = writers(run), pairs_of(run)
    assert len(pairs) == 20
    assert {(written[p["chosen_id"]], written[p["rejected_id"]]) for p in pairs} == {
        (SAMPLES, WEAKER_SAMPLES)
    }
    by_id = {
        row.row_id: row for name in (SAMPLES, WEAKER_SAMPLES) for row in stage_rows(run.root, name)
    }
    for pair in pairs:
        chosen, rejected = by_id[pair["chosen_id"]], by_id[pair["rejected_id"]]
        assert chosen.sample_index == rejected.sample_index
        assert chosen.model_fingerprint != rejected.model_fingerprint
    # The trace of a pair names the model of each side.
    origins = [o for o in trace(run, pairs[0]["row_id"]).walk() if o.kind == "response"]
    assert [o.engine["fingerprint"] for o in origins] == [
        by_id[pairs[0][side]].model_fingerprint for side in ("chosen_id", "rejected_id")
    ]
    (source,) = json.loads(run.metrics.read_text())["data"]["contrast"]["sources"]
    assert (source["chosen"], source["rejected"], source["share"]) == (
        "compared responses",
        "responses of the weaker policy",
        1.0,
    )
    card = (run.dataset / "README.md").read_text()
    for folder in (SAMPLES, WEAKER_SAMPLES):
        engine = stage_manifests(run.root, folder)[0].engine
        assert f"`{engine['fingerprint'][:16]}`" in card
    assert "| responses of the weaker policy | `" in card
    assert not verify(run)


async def test_delta_of_two_others_does_not_sample_the_policy(tmp_path: Path) -> None:
    policies = {**WEAKER, "stronger": {"engine": OTHER_JUDGE}}
    run = await finished(tmp_path, {"comparisons": "delta", **ASSUMED}, policies=policies)
    written = writers(run)
    assert not stage_manifests(run.root, SAMPLES)
    assert {(written[p["chosen_id"]], written[p["rejected_id"]]) for p in pairs_of(run)} == {
        ("preference/sample-stronger", WEAKER_SAMPLES)
    }


async def test_samples_of_all_policies_meet(tmp_path: Path) -> None:
    """2 + 1 candidates make 3 comparisons of a prompt, each judged like any other."""
    policies = {"weaker": {"engine": OTHER_POLICY, "sample": {"temperature": 0.5}}}
    run = await finished(tmp_path, {"sample": {"num_samples": 2}}, policies=policies)
    written = writers(run)
    labels = list(stage_rows(run.root, "preference/judge"))
    kinds = Counter(tuple(sorted((written[r.first_id], written[r.second_id]))) for r in labels)
    assert kinds == {(SAMPLES, SAMPLES): 10, (SAMPLES, WEAKER_SAMPLES): 20}
    assert {row.method for row in labels} == {"judge"}


async def test_worst_of_several_policies_is_rejected(tmp_path: Path) -> None:
    """The judge prefers polite replies, and the labels of all policies' samples are ranked."""
    preference = {"comparisons": "best_vs_worst", "sample": {"num_samples": 2}}
    run = await finished(tmp_path, preference, policies=WEAKER)
    assert len(list(stage_rows(run.root, "preference/judge"))) == 6 * 10
    pairs = pairs_of(run)
    assert pairs and all("polite" in p["chosen"] and "rude" in p["rejected"] for p in pairs)
    assert {writers(run)[p["rejected_id"]] for p in pairs} == {SAMPLES, WEAKER_SAMPLES}


async def test_policies_leave_the_other_rows_alone(tmp_path: Path) -> None:
    """The policy's own samples, and their labels, have the ids that they have without others."""
    preference = {"sample": {"num_samples": 2}}
    plain = await finished(tmp_path / "plain", preference)
    mixed = await finished(tmp_path / "mixed", preference, policies=WEAKER)
    for folder in ("supervised/revise-1", SAMPLES):
        before, after = (list(stage_rows(run.root, folder)) for run in (plain, mixed))
        assert [row.row_id for row in before] == [row.row_id for row in after]
    ids = {row.row_id for row in stage_rows(mixed.root, "preference/judge")}
    assert {row.row_id for row in stage_rows(plain.root, "preference/judge")} < ids


async def test_judged_pairs_mix_with_those_of_a_delta_run(tmp_path: Path) -> None:
    """By equal weights, as many of each; the card and the trace say which is which."""
    preference = {"comparisons": "delta", "sample": {"num_samples": 1}, **ASSUMED}
    delta = await finished(tmp_path / "delta", preference, policies=WEAKER)
    pairs = str(delta.dataset / "preference.parquet")
    sources = tmp_path / "sources.yaml"
    listed = [
        {"type": "run", "weight": 0.5},
        {"type": "dataset", "name": "delta", "path": pairs, "weight": 0.5},
    ]
    sources.write_text(yaml.safe_dump({"sources": listed}))
    run = await finished(tmp_path / "judged", {"sources": str(sources)}, prompts=20)
    by_source = Counter(pair["source"] for pair in pairs_of(run))
    assert by_source["delta"] == by_source["run"] > 0
    assert {p["soft_label"] for p in pairs_of(run) if p["source"] == "delta"} == {0.8}
    assert "| delta | ai | 10 | 10 |" in (run.dataset / "README.md").read_text()
    number = by_source["delta"]
    assert f"| delta | ai | 10 | {number} | 50 % |" in (run.root / "report.md").read_text()


SAME = {"engine": POLICY}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"preference": ASSUMED}, "known by its origin, but comparisons is 'samples'"),
        (
            {"preference": {"comparisons": "revision_vs_initial", "labeler": "assumed"}},
            "needs assumed.label_accuracy: how often",
        ),
        (
            {
                "preference": {
                    "comparisons": "revision_vs_initial",
                    "labeler": "assumed",
                    "assumed": {"label_accuracy": 0.4},
                }
            },
            "label_accuracy",
        ),
        (
            {
                "preference": {
                    **ASSUMED,
                    "comparisons": "revision_vs_initial",
                    "pair": {"min_margin": 2},
                }
            },
            r"0.8 is a tie .*min_margin 2 nats",
        ),
        (
            {
                "preference": {**ASSUMED, "comparisons": "revision_vs_initial"},
                "panel": [OTHER_JUDGE],
            },
            "asks no judge, but the recipe names a panel",
        ),
        ({"preference": {"comparisons": "delta"}}, "add policies.weaker or policies.stronger"),
        (
            {
                "preference": {"comparisons": "delta"},
                "policies": {"weaker": {"engine": OTHER_POLICY, "sample": {"num_samples": 3}}},
            },
            "stronger policy has num_samples 2 and the weaker 3",
        ),
        (
            {"preference": {"comparisons": "revision_vs_initial"}, "policies": WEAKER},
            "policies.weaker writes responses that comparisons",
        ),
        ({"policies": {"stronger": SAME}}, "policies.stronger is the policy itself"),
        ({"policies": {"second": SAME}}, "second"),
    ],
)
def test_recipe_that_cannot_mean_what_it_says(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write_recipe(tmp_path, **changes))


def test_missing_model_of_a_further_policy_is_found_first(tmp_path: Path) -> None:
    engine = {"type": "vllm", "model": str(tmp_path / "nowhere")}
    with pytest.raises(ConfigError, match="nowhere"):
        started(tmp_path, {}, policies={"weaker": {"engine": engine}})
    assert not (tmp_path / "out").exists()
