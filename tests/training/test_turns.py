"""Several turns: which tokens are learned with which weight, and what the loss makes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config.alarms import AlarmConfig
from pipeline.config.training import DpoConfig, TrainingSection, TurnsConfig
from pipeline.errors import DataError
from pipeline.training.worker.encoding import ReplyEncoder
from pipeline.training.worker.turns import encode_turns, turn_weights
from tests.training.builders import pair_row, read_metrics
from tests.training.losses import soft_dpo_loss
from tests.training.test_encoding import encoder_of

PROMPT = [{"role": "user", "content": "Go"}]


def turns(*texts: str) -> list[dict[str, str]]:
    """Turns of assistant and user by turns, the assistant first."""
    return [
        {"role": "assistant" if i % 2 == 0 else "user", "content": text}
        for i, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> ReplyEncoder:
    return encoder_of(tiny_model)


def test_weights_of_three_turns() -> None:
    """phi(t, 3) at gamma .7: 1, .7 (1 - .49) / (1 - .343), .49 (1 - .7) / (1 - .343)."""
    three = turn_weights(3, TurnsConfig(gamma=0.7))
    assert three == pytest.approx([1, 0.543379, 0.223744], abs=1e-6)
    assert turn_weights(3, TurnsConfig(gamma=1.0)) == pytest.approx([1, 2 / 3, 1 / 3])
    near = turn_weights(3, TurnsConfig(gamma=0.9999))
    assert near == pytest.approx(turn_weights(3, TurnsConfig(gamma=1.0)), abs=1e-3)
    assert turn_weights(3, TurnsConfig(gamma=1e-9)) == pytest.approx([1, 0, 0], abs=1e-8)
    for config in (TurnsConfig(), TurnsConfig(gamma=0.3), TurnsConfig(learn="last")):
        assert turn_weights(1, config) == pytest.approx([1.0])
    assert turn_weights(2, TurnsConfig()) == [1, 1]
    assert turn_weights(2, TurnsConfig(learn="last")) == [0, 1]


def test_only_what_the_assistant_wrote_has_a_weight(encoder: ReplyEncoder) -> None:
    said = turns("AB", "why", "C")
    ids, weights = encode_turns(encoder, PROMPT, said, "r", TurnsConfig(gamma=1.0))
    learned = [(encoder.tokenizer.decode([i]), w) for i, w in zip(ids, weights, strict=True) if w]
    assert learned == [("A", 1), ("B", 1), ("<|end|>", 1), ("C", 0.5), ("<|end|>", 0.5)]
    assert encoder.tokenizer.decode(ids) == "AB<|end|><|user|>why<|end|><|assistant|>C<|end|>"


@pytest.mark.parametrize(
    ("said", "template", "message"),
    [
        (turns("A", "why"), None, "row r: its turns have to end with one of the assistant"),
        ([], None, "have to end with one of the assistant"),
        (
            turns("A", "why", "B"),
            "{% for m in messages %}<|{{ m.role }}|>{{ m.content if loop.revindex < 3 else '' }}"
            "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
            "renders earlier turns in another way once turn 3",
        ),
    ],
)
def test_turns_that_cannot_be_learned_are_one_line(
    said: list[dict[str, str]], template: str | None, message: str, encoder: ReplyEncoder
) -> None:
    original = encoder.tokenizer.chat_template
    encoder.tokenizer.chat_template = template or original
    try:
        with pytest.raises(DataError, match=message):
            encode_turns(encoder, PROMPT, said, "r", TurnsConfig())
    finally:
        encoder.tokenizer.chat_template = original


def batch_of(trainer: Any) -> dict[str, Any]:
    rows = [trainer.train_dataset[i] for i in range(4)]
    batch: dict[str, Any] = trainer._prepare_inputs(trainer.data_collator(rows))
    return batch


@pytest.mark.parametrize("padding_free", [False, True])
def test_one_turn_is_dpo(padding_free: bool, make_trainer: Callable[..., Any]) -> None:
    """Single replies as lists of one turn, at any gamma: the loss and gradients of DPO."""
    plain = [pair_row(i) for i in range(4)]
    lists = [row | {s: turns(row[s]) for s in ("chosen", "rejected")} for row in plain]
    found = []
    for rows, config in ((plain, None), (lists, TurnsConfig(gamma=0.7))):
        settings: TrainingSection = DpoConfig(beta=0.5, turns=config, padding_free=padding_free)
        trainer = make_trainer(settings, rows)
        batch = batch_of(trainer)
        batch["ref_chosen_logps"] = batch["ref_chosen_logps"] - 2.0
        trainer.model.zero_grad()
        loss = trainer._compute_loss(trainer.model, batch, False)
        loss.backward()
        found.append((loss.detach(), trainer.model.lm_head.weight.grad.clone()))
    torch.testing.assert_close(found[0], found[1])


def test_the_loss_weighs_turns_and_leaves_out_users(make_trainer: Callable[..., Any]) -> None:
    """With the reference lowered by 2 nats on a side's weighted sum the gap is 2; and what a user
    says changes nothing but the context.
    """
    rows = [
        pair_row(i, chosen=turns("A" * 4, "so", "C"), rejected=turns("B", "so", "D", "eh", "E"))
        for i in range(4)
    ]
    trainer = make_trainer(DpoConfig(beta=0.5, turns=TurnsConfig(gamma=0.7)), rows)
    batch = batch_of(trainer)
    assert batch["token_weights"].shape == batch["input_ids"].shape
    assert batch["token_weights"][4:].unique().tolist() == pytest.approx(
        [0, 0.223744, 0.543379, 1], abs=1e-6
    )
    labels = batch["soft_label"]
    torch.testing.assert_close(
        trainer._compute_loss(trainer.model, dict(batch), False), torch.tensor(0.693147)
    )
    batch["ref_chosen_logps"] = batch["ref_chosen_logps"] - 2.0
    expected = soft_dpo_loss(torch.full((4,), 2.0), labels, 0.5).mean()
    torch.testing.assert_close(trainer._compute_loss(trainer.model, batch, False), expected)


def test_trajectories_train(train: Callable[..., Any]) -> None:
    config = DpoConfig(
        turns=TurnsConfig(gamma=0.7),
        max_steps=2,
        learning_rate=3e-3,
        warmup_share=0.0,
        alarms=AlarmConfig(probe_prompts=0),
    )
    rows = [
        pair_row(i, chosen=turns("AA", "so", "A"), rejected=turns("B", "so", "B", "eh", "B"))
        for i in range(8)
    ]
    result = train(config, rows)
    losses = [row["loss"] for row in read_metrics(result)]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5) and losses[1] < losses[0]
    with pytest.raises(DataError, match=r"`chosen` is a list of turns, which method dpo learns"):
        train(config.model_copy(update={"turns": None}), rows, name="plain")
