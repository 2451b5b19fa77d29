"""KTO's replies: one label each, batches without a prompt twice, and a loss on pairs and
feedback.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config.alarms import AlarmConfig
from pipeline.config.training import DpoConfig, KtoConfig
from pipeline.errors import ConfigError, DataError
from pipeline.training.job import ReplyCounts, TrainingJob, describe, write_job
from pipeline.training.launch import check_job
from pipeline.training.worker.kto_rows import (
    Reply,
    reply_key,
    resolve_contradictions,
    side_weights,
    unpaired_columns,
)
from tests.training.builders import feedback_row, pair_row, read_metrics, write_rows
from tests.training.losses import kto_loss

PAIRS = [pair_row(i) for i in range(8)]
JUDGED = [feedback_row(i) for i in range(6)] + [
    feedback_row(i, label=False, completion="DDD", weight=0.5) for i in range(6, 8)
]


def pairs_of(number: int, replies: int = 2) -> list[Reply]:
    """That many replies to each of `number` prompts; prompt i is [i], its replies [100 + i, k]."""
    return [
        Reply(f"{i:02}:{k}", f"{i}-{k}", [i], [100 + i, k], k == 0)
        for i in range(number)
        for k in range(replies)
    ]


def single(key: str, good: bool, row_id: str = "") -> Reply:
    return Reply(row_id or f"{key}{good}", key, [1], [2], good)


@pytest.mark.parametrize(
    ("number", "replies", "batch_size"),
    [(8, 2, 4), (7, 2, 4), (5, 2, 2), (2, 2, 2), (9, 1, 4), (6, 4, 4), (13, 3, 5)],
)
def test_batch_has_no_prompt_twice(number: int, replies: int, batch_size: int) -> None:
    given = pairs_of(number, replies)
    columns = unpaired_columns(given, batch_size, seed=3)
    assert sorted(columns["row_id"]) == [reply.row_id for reply in given]
    for start in range(0, len(given), batch_size):
        prompts = [tuple(prompt) for prompt in columns["prompt_ids"][start : start + batch_size]]
        assert len(set(prompts)) == len(prompts)
    names = ("prompt_ids", "completion_ids", "KL_completion_ids")
    rows = zip(*(columns[name] for name in names), strict=True)
    for (prompt,), reply, foreign in rows:
        assert reply[0] == 100 + prompt and foreign[0] != 100 + prompt


def test_full_batch_is_estimated_on_its_own_replies() -> None:
    columns = unpaired_columns(pairs_of(8), 4, seed=0)
    for start in range(0, 16, 4):
        own, foreign = (
            columns[name][start : start + 4] for name in ("completion_ids", "KL_completion_ids")
        )
        assert sorted(own) == sorted(foreign)


def test_crowded_prompt_still_gets_foreign_replies() -> None:
    """Six replies to one prompt and one to another fit no two batches: the mismatch holds all the
    same.
    """
    given = [*pairs_of(1, 6), Reply("x", "x", [9], [109], False)]
    columns = unpaired_columns(given, 4, seed=0)
    for (prompt,), foreign in zip(columns["prompt_ids"], columns["KL_completion_ids"], strict=True):
        assert foreign[0] != 100 + prompt
    with pytest.raises(DataError, match="all 6 replies answer one prompt"):
        unpaired_columns(pairs_of(1, 6), 4, seed=0)


def test_order_follows_the_seed_alone() -> None:
    given = pairs_of(6)
    first = unpaired_columns(given, 4, seed=1)
    assert unpaired_columns(given[::-1], 4, seed=1) == first
    assert unpaired_columns(given, 4, seed=2)["row_id"] != first["row_id"]


def test_reply_labeled_both_ways_is_left_out() -> None:
    """A is good twice, b good and bad, c bad: a and c stay, once each."""
    kept, counts = resolve_contradictions(
        [
            single("a", True, "1"),
            single("b", True),
            single("a", True, "2"),
            single("b", False),
            single("c", False),
        ]
    )
    assert [reply.row_id for reply in kept] == ["1", "cFalse"]
    assert counts.model_dump() == {
        "read": 5,
        "contradicted": 2,
        "repeated": 1,
        "desirable": 1,
        "undesirable": 1,
    }
    assert (
        counts.read == counts.contradicted + counts.repeated + counts.desirable + counts.undesirable
    )


def test_one_side_alone_is_refused() -> None:
    message = (
        r"0 desirable and 1 undesirable .* \(2 of 3 are labeled both ways\), but KTO needs both"
    )
    with pytest.raises(DataError, match=message):
        resolve_contradictions([single("a", True), single("a", False), single("b", False)])


def test_white_space_makes_no_other_reply() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    key = reply_key(messages, "Yes.")
    assert key == reply_key([{"role": "user", "content": " Hi\n"}], "Yes.\n")
    assert reply_key(messages, "Caf\u00e9") == reply_key(messages, "Cafe\u0301")
    assert (
        key != reply_key(messages, "No.") != reply_key([{"role": "user", "content": "Ho"}], "No.")
    )


@pytest.mark.parametrize(
    ("good", "bad", "weights"), [(30, 10, (1.0, 3.0)), (5, 10, (2.0, 1.0)), (7, 7, (1.0, 1.0))]
)
def test_balance_gives_both_sides_equal_force(
    good: int, bad: int, weights: tuple[float, float]
) -> None:
    """The larger side keeps its weight: weight times count is the same on both."""
    replies = ReplyCounts(
        read=good + bad, contradicted=0, repeated=0, desirable=good, undesirable=bad
    )
    assert tuple(side_weights(KtoConfig(), replies).values()) == pytest.approx(weights)
    chosen, rejected = side_weights(KtoConfig(desirable_weight=1.2), replies).values()
    assert chosen * good / (rejected * bad) == pytest.approx(1.2)
    assert tuple(side_weights(KtoConfig(balance=False), replies).values()) == (1.0, 1.0)


def test_loss_on_pairs_and_feedback_by_hand(make_trainer: Callable[..., Any]) -> None:
    """Log-ratio 2 of good and -1 of bad replies, divergence .5, beta .1: each costs .462570.

    8 pairs, 6 thumbs up and 2 down are 14 good and 10 bad replies: the bad ones weigh 1.4.
    """
    trainer = make_trainer(KtoConfig(batch_size=24), PAIRS, JUDGED)
    rows = [trainer.train_dataset[i] for i in range(24)]
    assert sum(row["label"] for row in rows) == 14
    batch = trainer._prepare_inputs(trainer.data_collator(rows))
    good = batch["label"].bool()
    batch["ref_logps"] = batch["ref_logps"] - torch.where(good, 2.0, -1.0)
    batch["ref_KL_logps"] = batch["ref_KL_logps"] - 0.5
    loss = trainer._compute_loss(trainer.model, batch, False)
    assert loss.item() == pytest.approx(0.462570 * (14 + 10 * 1.4) / 24, abs=1e-5)
    ratios = torch.where(good, 2.0, -1.0)
    ours = kto_loss(ratios, good, torch.tensor(0.5), 0.1) * torch.where(good, 1.0, 1.4)
    torch.testing.assert_close(loss, ours.mean(), atol=1e-5, rtol=0)


def test_feedback_trains_the_policy(train: Callable[..., Any], tmp_path: Path) -> None:
    """Without one clear pair, the replies that users liked gain on those that they did not."""
    feedback = write_rows(tmp_path / "feedback.parquet", JUDGED)
    config = KtoConfig(
        learning_rate=3e-3,
        warmup_share=0.0,
        max_steps=6,
        batch_size=8,
        device="cpu",
        alarms=AlarmConfig(probe_prompts=0),
    )
    unclear = [pair_row(i, soft_label=0.5) for i in range(4)]
    result = train(config, unclear, feedback=feedback)
    rows = read_metrics(result)
    # Equal models cost .5 a reply; two thumbs down weigh as much as six up.
    assert rows[0]["loss"] == pytest.approx(0.5 * (6 * 1 + 2 * 3) / 8, abs=1e-5)
    assert rows[-1]["reward_margin"] > rows[0]["reward_margin"] + 0.02
    assert (result.desirable_weight, result.undesirable_weight) == pytest.approx((1.0, 3.0))
    assert (result.rows.unclear, result.rows.used, result.rows.feedback) == (4, 8, 8)
    assert (result.rows.replies.desirable, result.rows.replies.undesirable) == (6, 2)
    both = train(config.model_copy(update={"max_steps": 1}), PAIRS, name="both", feedback=feedback)
    assert both.rows.replies.read == 24 and both.feedback_sha256 == result.feedback_sha256 != ""


def make_job(
    tmp_path: Path, model: Path, judged: list[dict[str, Any]], **fields: Any
) -> TrainingJob:
    given = {
        "config": KtoConfig(),
        "model": model,
        "output_dir": tmp_path / "job",
        "dataset": write_rows(tmp_path / "rows.parquet", PAIRS),
        "feedback": write_rows(tmp_path / "feedback.parquet", judged),
    }
    return TrainingJob(**given | fields)


def test_changed_feedback_is_another_job(tmp_path: Path, tiny_model: Path) -> None:
    job = make_job(tmp_path, tiny_model, JUDGED)
    first = describe(job)
    assert describe(make_job(tmp_path, tiny_model, JUDGED)) == first
    changed = describe(make_job(tmp_path, tiny_model, [*JUDGED[1:], feedback_row(0, label=False)]))
    without = describe(job.model_copy(update={"feedback": None}))
    assert len({first.job_hash, changed.job_hash, without.job_hash}) == 3
    assert without.feedback_sha256 == "" and changed.feedback_sha256 != first.feedback_sha256


def test_reference_of_other_rows_is_not_reused(tmp_path: Path, tiny_model: Path) -> None:
    """The mismatched reply of a row depends on all of them."""
    from pipeline.training.worker.train import reference_cache

    paths = set()
    for judged, config in (
        (JUDGED, KtoConfig()),
        (JUDGED[1:], KtoConfig()),
        (JUDGED, KtoConfig(min_weight=0.6)),
        (JUDGED, KtoConfig(max_rows=4)),
    ):
        file = describe(make_job(tmp_path, tiny_model, judged, config=config))
        cache = reference_cache(file, compute_dtype="float32")
        paths.add(cache.path if cache else None)
    assert len(paths) == 4 and None not in paths


def test_feedback_is_refused_where_pairs_are_learned(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="method 'dpo' learns from pairs alone; use kto"):
        check_job(make_job(tmp_path, tiny_model, JUDGED, config=DpoConfig()))
    with pytest.raises(DataError, match=r"none.parquet' does not exist"):
        check_job(make_job(tmp_path, tiny_model, JUDGED, feedback=tmp_path / "none.parquet"))
    check_job(make_job(tmp_path, tiny_model, JUDGED))


def test_thumbs_up_alone_end_in_one_line(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the training process prints, and `launch` raises again."""
    from pipeline.training.worker.__main__ import main

    job = make_job(
        tmp_path,
        tiny_model,
        JUDGED[:6],
        config=KtoConfig(device="cpu"),
        dataset=write_rows(tmp_path / "unclear.parquet", [pair_row(0, soft_label=0.5)]),
    )
    assert main(write_job(describe(job))) == 2
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("error ")]
    assert line.startswith("error DataError: 6 desirable and 0 undesirable replies are left")
    assert not (job.output_dir / "result.json").exists()
