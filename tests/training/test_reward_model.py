"""A reward model: its loss, its held-out pairs, and the folder that it leaves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipeline.config.alarms import AlarmConfig
from pipeline.config.engines import RewardEngineConfig
from pipeline.config.training import LoraConfig, RewardModelTrainingConfig
from pipeline.engines import check_engine
from pipeline.errors import DataError
from pipeline.ids import content_hash
from pipeline.training.worker.heldout import rewards, split
from tests.training.builders import pair_row, read_metrics
from tests.training.losses import soft_reward_loss

Train = Callable[..., Any]
FAST: dict[str, Any] = {
    "learning_rate": 3e-3,
    "warmup_share": 0.0,
    "max_steps": 8,
    "alarms": AlarmConfig(probe_prompts=4),
}
PAIRS = [pair_row(i) for i in range(24)]


@pytest.mark.parametrize("lora", [None, LoraConfig(r=4)], ids=["full", "lora"])
def test_trained_model_prefers_the_chosen_of_other_prompts(
    train: Train, tiny_model: Path, lora: LoraConfig | None
) -> None:
    """Chosen replies are made of A, rejected ones of B; the folder is what the labeler reads."""
    result = train(RewardModelTrainingConfig(**FAST, lora=lora, heldout_share=0.3), PAIRS)
    rows = read_metrics(result)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.05
    assert rows[-1]["reward_margin"] > rows[0]["reward_margin"]
    held = result.heldout
    assert held.accuracy == 1 and held.pairs == held.prompts == result.rows.heldout > 3
    assert 0.5 < held.low < held.accuracy == held.high and held.log_loss < 0.693
    assert result.rows.used + result.rows.heldout == result.rows.read == 24
    assert result.probe_before is None and not result.is_adapter
    check_engine(RewardEngineConfig(type="reward_model", model=str(result.model_dir), device="cpu"))
    config = json.loads((result.model_dir / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    tokenizer = AutoTokenizer.from_pretrained(result.model_dir)
    model = AutoModelForSequenceClassification.from_pretrained(result.model_dir)
    better, worse = (
        tokenizer.apply_chat_template(
            [{"role": "user", "content": "Say 99"}, {"role": "assistant", "content": text}],
            return_dict=False,
        )
        for text in ("AAA", "BBBB")
    )
    one, two = rewards(model.float(), [better, worse], tokenizer.pad_token_id, 1)
    assert one > two
    both = rewards(model, [better, worse], tokenizer.pad_token_id, 2)
    assert both == pytest.approx([one, two], abs=1e-5)


def test_first_loss_is_the_formula(make_trainer: Callable[..., Any]) -> None:
    """With soft labels .9 and .6, on the scores of the untrained model."""
    labels = [0.9 if i % 2 else 0.6 for i in range(4)]
    trainer = make_trainer(
        RewardModelTrainingConfig(heldout_share=0),
        [pair_row(i, soft_label=p) for i, p in enumerate(labels)],
    )
    trainer.model.eval()
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    with torch.no_grad():
        scores = trainer.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        gap = scores[:4, 0] - scores[4:, 0]
        expected = soft_reward_loss(gap, batch["soft_label"]).mean()
        loss = trainer.compute_loss(trainer.model, dict(batch))
    assert sorted(batch["soft_label"].tolist()) == pytest.approx(sorted(labels))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_hard_labels_leave_the_loss_of_trl(make_trainer: Callable[..., Any]) -> None:
    trainer = make_trainer(RewardModelTrainingConfig(labels="hard", heldout_share=0), PAIRS[:4])
    assert "soft_label" not in trainer.train_dataset.column_names


def test_undecided_labels_leave_the_scores_together(train: Train) -> None:
    torn = [pair_row(i, soft_label=0.5) for i in range(24)]
    sure = train(RewardModelTrainingConfig(**FAST), PAIRS, name="sure")
    even = train(RewardModelTrainingConfig(**FAST), torn, name="torn")
    assert abs(even.reward_margin) < 0.3 * abs(sure.reward_margin)


def test_pairs_of_one_conversation_stay_on_one_side() -> None:
    keys = [content_hash(number // 3) for number in range(60)]
    columns: dict[str, list[Any]] = {"conversation": keys, "row_id": list(range(60))}
    trained, held = split(columns, 0.3, seed=1)
    assert set(trained["conversation"]).isdisjoint(held["conversation"])
    assert sorted(trained["row_id"] + held["row_id"]) == list(range(60))
    assert split(columns, 0.3, seed=1)[1] == held != split(columns, 0.3, seed=2)[1]
    assert split(columns, 0.0, seed=1)[0] == columns


def test_one_prompt_cannot_be_split(train: Train) -> None:
    rows = [pair_row(i, messages=[{"role": "user", "content": "Say"}]) for i in range(4)]
    with pytest.raises(DataError, match=r"heldout_share 0.2 of 1 prompts leaves"):
        train(RewardModelTrainingConfig(**FAST), rows)


def test_an_adapter_must_be_merged() -> None:
    with pytest.raises(ValueError, match="its adapter must be merged"):
        RewardModelTrainingConfig(lora=LoraConfig(merge=False))
