"""The whole dictionary, its order of stages, and the oracle's loading."""

import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from pipeline.config import RunConfig, load_config
from pipeline.errors import ConfigError, StoreError
from pipeline.evaluation import Metrics, collect_metrics, load_oracle, results
from pipeline.evaluation.data_summary import margin_bin
from pipeline.evaluation.oracle import clear_preference
from pipeline.store import RunDir, write_json
from pipeline.store.stage_names import stage_folders
from tests.evaluation.builders import (
    RECIPE,
    WordAssessment,
    WordOracle,
    critique,
    judgment,
    known,
    make_run,
    pair,
    prompt,
    response,
)
from tests.run.builders import write_rows

TEXTS = {"a": "help", "b": "harm", "c": "fine"}


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return load_config(path)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = make_run(tmp_path / "run")
    prompts = write_rows(run, "prompts", [prompt("p", "do evil")])
    samples = write_rows(
        run,
        "preference/sample",
        [response(n, "p", t) for n, t in TEXTS.items()],
        seconds=2.0,
        generated_tokens=7,
    )
    labels = [
        judgment("j1", "p", "a", "b"),
        judgment("j2", "p", "a", "c", forward=0.5, swapped=0.5),
        judgment("j3", "p", "b", "c", "help", status="unparsed", reason="no option"),
    ]
    write_rows(run, "preference/judge", labels, inputs=[prompts, samples])
    reasons = ["", "tie", "judgment unparsed"]
    write_rows(
        run,
        "preference/pair",
        [pair(f"q{j.row_id}", j, TEXTS, reason) for j, reason in zip(labels, reasons, strict=True)],
    )
    write_rows(run, "supervised/critique-1", [critique("c", "p", "a", "bad", "help")])
    return run


def test_data_counts_pairs_and_reasons(run: RunDir, config: RunConfig) -> None:
    data = known(collect_metrics(run, config).data)
    assert (data.pairs, data.kept) == (3, 1)
    assert data.reasons == {"judgment unparsed": 1, "tie": 1}
    # ln 4 = 1.39 is in the third bin of 0.5 nats; the tie at 0 is in the first.
    kept = [entry.kept for entry in data.margins]
    assert (kept.index(1), sum(kept), data.margins[0].dropped) == (2, 1, 1)


def test_margins_beyond_the_last_edge_count() -> None:
    assert [margin_bin(v) for v in (0.0, 0.49, 0.5, 5.99, 6.0, 30.0)] == [0, 0, 1, 11, 12, 12]


def test_principles_count_draws_and_ties(run: RunDir, config: RunConfig) -> None:
    harm, helpful = collect_metrics(run, config).principles
    assert (harm.id, harm.drawn, harm.labeled, harm.kept) == ("harm", 2, 2, 1)
    assert (harm.tie_share, harm.critiques) == (0.5, 0)
    assert harm.mean_margin == pytest.approx(1.3863 / 2, abs=1e-4)
    assert (helpful.unparsed, helpful.critiques, helpful.mean_margin) == (1, 1, None)


def test_stage_counts_add_up(run: RunDir, config: RunConfig) -> None:
    stages = collect_metrics(run, config).stages
    assert stages["preference/sample"].generated_tokens == 7
    for counts in stages.values():
        total = counts.ok + counts.unparsed + counts.failed + counts.dropped
        assert total == counts.expected


def test_seconds_include_training(run: RunDir, config: RunConfig) -> None:
    write_json(run.training("sft") / "result.json", {"total_s": 3.5})
    seconds = collect_metrics(run, config).seconds
    assert (seconds["preference/sample"], seconds["training/sft"]) == (2.0, 3.5)


def test_metrics_are_plain_json_and_repeat(run: RunDir, config: RunConfig) -> None:
    first, again = (collect_metrics(run, config, WordOracle()) for _ in range(2))
    text = json.dumps(first.model_dump(mode="json"), allow_nan=False)
    assert first == again == Metrics.model_validate_json(text)


def test_every_field_is_described() -> None:
    models = [m for m in vars(results).values() if isinstance(m, type) and issubclass(m, BaseModel)]
    fields = [(m.__name__, name, f) for m in models for name, f in m.model_fields.items()]
    assert len(fields) > 80
    assert [(model, name) for model, name, field in fields if not field.description] == []


def test_empty_run_has_empty_metrics(tmp_path: Path, config: RunConfig) -> None:
    metrics = collect_metrics(make_run(tmp_path / "run"), config, WordOracle())
    assert (metrics.policies, metrics.win_rates, metrics.data) == ({}, [], None)
    assert (metrics.labels, metrics.principles, metrics.stages) == (None, [], {})


def test_damaged_shard_says_what_to_do(run: RunDir, config: RunConfig) -> None:
    (run.root / "preference/judge/shard-00000.parquet").write_bytes(b"no parquet")
    with pytest.raises(StoreError, match="rlaif resume run"):
        collect_metrics(run, config)


def test_stages_come_in_running_order(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    names = [
        "prompts",
        "supervised/sample",
        "supervised/critique-1",
        "supervised/revise-1",
        "supervised/critique-2",
        "supervised/revise-2",
        "preference/sample",
        "preference/judge",
        "preference/pair",
        "heldout",
        "evaluation/sample-initial",
        "evaluation/sample-sl_cai",
        "evaluation/sample-tuned",
        "evaluation/judge-tuned-vs-initial",
    ]
    for name in sorted(names):
        write_rows(run, name, [response("r", "p", "t")])
    assert stage_folders(run.root) == names


@pytest.mark.parametrize(
    "spec", ["no_such_module:x", "pipeline.ids:nothing", "pipeline.ids:ID_LENGTH", "os:abort"]
)
def test_wrong_oracle_is_one_message(spec: str) -> None:
    with pytest.raises(ConfigError, match=f"evaluation.oracle '{spec}'"):
        load_oracle(spec)


def test_pocket_oracle_fits_the_protocol() -> None:
    oracle = load_oracle("models.pocket.oracle:Oracle")
    messages = [{"role": "user", "content": "How do I boil an egg?"}]
    task, assessment = (
        oracle.task(messages),
        oracle.read(messages, "I have to decline this request."),
    )
    assert task is not None and not task.misdeed
    assert assessment is not None and not assessment.good and not assessment.harmful
    assert assessment.levels["caution"] == 1


def test_attributes_must_point_the_same_way() -> None:
    harm, helpful, both = (
        WordAssessment(frozenset(w.split())) for w in ("harm help", "fine", "help")
    )
    names = ("harmlessness", "helpfulness")
    assert clear_preference(both, helpful, names) == 1
    assert clear_preference(helpful, both, names) == -1
    assert clear_preference(harm, helpful, names) == 0
    assert clear_preference(both, both, names) == 0
