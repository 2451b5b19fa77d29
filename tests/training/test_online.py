"""Methods that learn from the policy's own replies, scored by a reward model: RLOO and P3O."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import LlamaForCausalLM

from pipeline.config.alarms import AlarmConfig
from pipeline.config.training import (
    LoraConfig,
    OnlineSection,
    P3oConfig,
    RewardModelTrainingConfig,
    RlooConfig,
    SftConfig,
)
from pipeline.engines.base import StartingModel
from pipeline.engines.fingerprint import model_fingerprint
from pipeline.errors import ConfigError, DataError
from pipeline.training.job import RowCounts, TrainingJob, describe, read_job, write_job
from pipeline.training.launch import check_job
from pipeline.training.worker.alarms import find_alarms
from pipeline.training.worker.heldout import rewards
from pipeline.training.worker.loading import encoder_of
from pipeline.training.worker.rewards import load_rewards
from tests.cli.commands import Rlaif
from tests.engines.tiny_model import build_tiny_classifier
from tests.run.builders import write_recipe
from tests.run.test_reward_model import POCKET
from tests.training.builders import pair_row, read_metrics, train_here, write_rows
from tests.training.losses import rloo_loss

QUIET = AlarmConfig(probe_prompts=0)
WATCHED = AlarmConfig(probe_prompts=2, probe_tokens=8, divergence=1e-3)
START: dict[str, Any] = {"learning_rate": 3e-3, "warmup_share": 0.0, "alarms": QUIET}
FAST: dict[str, Any] = START | {
    "scheduler": "constant",
    "max_steps": 6,
    "max_tokens": 8,
    "beta": 0.01,
}
ROWS = [pair_row(i) for i in range(16)]
CPU = torch.device("cpu")


class World(NamedTuple):
    """A policy that ends its replies, and a reward model that prefers those made of A."""

    policy: Path
    reward: StartingModel


def write_policy(folder: Path, start: Path) -> Path:
    """A policy that writes A, B and the end of its reply, with chances of .39, .39 and .22.

    A constant in the embeddings is 5.6 after the last norm, so the head's first column is a bias.
    """
    shutil.copytree(start, folder)
    encoder = encoder_of(folder, None, {})
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.config.tie_word_embeddings = False
    head = torch.zeros_like(model.lm_head.weight)
    head[:, 0] = -1.0
    head[encoder.tokenizer("AB").input_ids, 0] = 1.0
    head[list(encoder.end_ids), 0] = 0.9
    model.lm_head.weight = torch.nn.Parameter(head)
    model.model.embed_tokens.weight.data[:, 0] = 1.0
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def world(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("online")
    reward = train_here(
        RewardModelTrainingConfig(**START, max_steps=8, heldout_share=0),
        [pair_row(i) for i in range(24)],
        folder / "reward",
        model=tiny_model,
    )
    policy = write_policy(folder / "policy", tiny_model)
    return World(policy, StartingModel(reward.model_dir, None, {}))


def log_odds_of_a(folder: Path) -> float:
    """Over B, as the first token of a reply; mean over the prompts."""
    encoder = encoder_of(folder, None, {})
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    a, b = encoder.tokenizer("AB").input_ids
    with torch.no_grad():
        logits = [model(torch.tensor([encoder.prompt(r["messages"])])).logits[0, -1] for r in ROWS]
    return float(torch.stack([each[a] - each[b] for each in logits]).mean())


@pytest.mark.parametrize(
    "config",
    [
        RlooConfig(**FAST | {"alarms": WATCHED}, batch_size=16),
        RlooConfig(**FAST | {"max_steps": 2}, lora=LoraConfig(r=4), num_samples=2),
        P3oConfig(**FAST | {"max_steps": 4}, gradient_accumulation=2, updates=2),
    ],
    ids=["rloo", "rloo-lora", "p3o"],
)
def test_policy_writes_what_the_reward_model_prefers(
    config: OnlineSection, world: World, tmp_path: Path
) -> None:
    rows = [*ROWS, pair_row(3, row_id="again"), pair_row(4, row_id="bad", status="failed")]
    result = train_here(
        config, rows, tmp_path / "job", model=world.policy, reward_model=world.reward
    )
    steps = read_metrics(result)
    assert abs(steps[0]["loss"]) < 1e-4 and abs(steps[0]["divergence"]) < 1e-5
    # With two updates every other step has new replies.
    written = [step for step in steps if "reply_tokens" in step]
    assert len(written) * config.updates == config.max_steps
    assert all(0 < step["reply_tokens"] <= 8 for step in written) and "clipped_share" in steps[0]
    # The head, in which alone A and B differ, has no adapter.
    assert config.lora or log_odds_of_a(result.model_dir) > log_odds_of_a(world.policy)
    assert result.trained_hash != result.model_hash
    alarms = {alarm.name for alarm in result.alarms}
    assert ("divergence" in alarms) == (config.alarms == WATCHED)
    assert result.rows.model_dump(exclude_defaults=True) == {
        "read": 18,
        "not_ok": 1,
        "repeated": 1,
        "used": 16,
    }
    assert result.reward_hash == model_fingerprint(
        world.reward.folder, dtype="stored", chat_template_args={}
    )
    job = read_job(tmp_path / "job" / "job.json")
    assert job.reward_hash == result.reward_hash and job.job.reward_model == world.reward
    assert (result.model_dir / "model.safetensors").is_file() and not result.is_adapter


def test_what_the_policy_wrote_raises_alarms() -> None:
    """At the end 1.5 nats a token from the start, where its replies before lost .2; and half of its
    replies reach the limit, at first a tenth.
    """
    series = {"loss": [0.0, 0.0], "divergence": [0.0, 1.5], "unfinished_share": [0.1, 0.5]}
    steps = [{name: values[i] for name, values in series.items()} | {"step": i} for i in (0, 1)]
    counts = RowCounts(read=4, used=4)
    found = find_alarms(RlooConfig(), steps, counts, None, None, 0.0, 0.2)
    assert [(a.name, a.value, a.limit) for a in found] == [
        ("divergence", 1.5, 1.0),
        ("missing_end", 0.5, pytest.approx(0.3)),
    ]
    assert "replies of the policy gained 1.50 nats" in found[0].message
    (other,) = find_alarms(RlooConfig(), steps[:1], counts, None, None, 0.0, 2.0)
    assert "replies of the model before lost 2.00 nats" in other.message


def test_a_loss_around_zero_has_no_spike() -> None:
    losses = [{"step": step, "loss": loss} for step, loss in enumerate([1e-9, 0.5, -0.4, 0.6])]
    counts = RowCounts(read=4, used=4)
    assert find_alarms(RlooConfig(), losses, counts, None, None, 0.0) == []
    assert find_alarms(SftConfig(), losses, counts, None, None, 0.0)


def online_trainer(make_trainer: Callable[..., Any], world: World, config: OnlineSection) -> Any:
    return make_trainer(config, ROWS, model=world.policy, reward_model=world.reward)


def shake(model: torch.nn.Module) -> None:
    """Move a model away from its reference."""
    torch.manual_seed(1)
    for weights in model.parameters():
        weights.data += 0.02 * torch.randn_like(weights)


def test_log_ratio_to_the_start_is_taken_off_the_score(
    make_trainer: Callable[..., Any], world: World
) -> None:
    """TRL's advantages are our scores less beta times the log-ratio of the whole reply, less the
    mean of the other replies to the prompt; a reply without a score counts in none.
    """
    trainer = online_trainer(
        make_trainer, world, RlooConfig(**FAST | {"beta": 0.7, "max_tokens": 4})
    )
    shake(trainer.model)
    scores: list[float | None] = []
    score = trainer.reward_funcs[0]

    def noted(**given: Any) -> list[float | None]:
        scores.extend(score(**given))
        return scores

    trainer.reward_funcs[0] = noted
    trainer.model.train()
    # What the folder says about sampling is not the policy: no byte could be drawn.
    trainer.model.generation_config.suppress_tokens = list(range(256))
    rows = [trainer.train_dataset[i // 4] for i in range(16)]
    batch = trainer._generate_and_score_completions(rows)
    mask = batch["completion_mask"]
    assert (batch["completion_ids"][mask.bool()] < 256).any()
    with torch.no_grad():
        reference, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.ref_model,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
            torch.cat([batch["prompt_mask"], mask], dim=1),
            mask.size(1),
        )
    log_ratio = batch["old_logps"] - (reference * mask).sum(dim=1)
    assert log_ratio.abs().max() > 0.01
    worth = [
        None if s is None else s - 0.7 * r for s, r in zip(scores, log_ratio.tolist(), strict=True)
    ]
    expected = []
    for start in range(0, 16, 4):
        known = [value for value in worth[start : start + 4] if value is not None]
        for value in worth[start : start + 4]:
            if value is None or len(known) < 2:
                expected.append(0.0)
            else:
                expected.append(value - (sum(known) - value) / (len(known) - 1))
    assert None in scores and any(expected)
    assert batch["advantages"].tolist() == pytest.approx(expected, abs=1e-4)


def test_losses_are_the_formulas(make_trainer: Callable[..., Any], world: World) -> None:
    """On one batch of pairs: RLOO by its formula, and both forms of P3O with its gradients as long
    as the policy wrote the replies itself.
    """
    configs = [
        RlooConfig(**FAST, num_samples=2),
        P3oConfig(**FAST),
        P3oConfig(**FAST, form="joint"),
    ]
    gradients: list[Any] = []
    batch: dict[str, Any] = {}
    for config in configs:
        trainer = online_trainer(make_trainer, world, config)
        trainer.model.train()
        if not batch:
            rows = [trainer.train_dataset[i // 2] for i in range(8)]
            batch = trainer._generate_and_score_completions(rows)
            batch["advantages"] = torch.tensor([1.0, -1.0, 0.5, -0.5, -2.0, 2.0, 0.0, 0.0])
            old = batch["old_logps"] - torch.tensor([0.5, -0.5, 0.1, 0, 0, 0, 0, 0])
            loss = trainer._compute_loss(trainer.model, batch | {"old_logps": old})
            ratios = (batch["old_logps"] - old).view(4, 2)
            expected = rloo_loss(ratios, batch["advantages"].view(4, 2) / 2, config.clip).mean()
            torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
            given = batch
        else:
            given = {name: values.unflatten(0, (-1, 2)) for name, values in batch.items()}
        trainer.model.zero_grad()
        trainer._compute_loss(trainer.model, given).backward()
        gradients.append([p.grad for p in trainer.model.parameters() if p.grad is not None])
    assert any(values.abs().max() > 1e-3 for values in gradients[0])
    for other in gradients[1:]:
        for one, two in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)


def test_scores_are_those_of_the_labeler(tiny_model: Path, tmp_path: Path) -> None:
    """The logit of the whole conversation read alone, by a model with a tokenizer of its own."""
    folder = build_tiny_classifier(tmp_path / "reward")
    writer, reader = encoder_of(tiny_model, None, {}), encoder_of(folder, None, {})
    assert len(reader.tokenizer) != len(writer.tokenizer)
    (end,) = writer.end_ids
    texts = ["Yes", "A longer (reply) of <|end|> it", "", "Cut"]
    replies = [[*writer.tokenizer(text).input_ids, end] for text in texts]
    messages = [[{"role": "user", "content": f"Ask {i}"}] for i in range(4)]
    replies[1] = writer.reply(messages[1], writer.prompt(messages[1]), texts[1], "1")
    score = load_rewards(StartingModel(folder, None, {}), writer, CPU, 4)
    found = score([*replies[:3], replies[3][:-1]], messages, list("0123"))
    alone = [
        rewards(score.model, [reader.conversation(messages[i], texts[i], "")], 0, 1)[0]
        for i in range(2)
    ]
    assert found[:2] == pytest.approx(alone, abs=1e-5) and found[2:] == [None, None]
    assert score([replies[3][:-1]], messages[:1], ["3"]) == [None]
    unheard = load_rewards(StartingModel(folder, None, {}), writer, CPU, 4)
    with pytest.raises(ConfigError, match=r"none of the policy's first 1 replies ends .*\(3\)"):
        unheard([replies[3][:-1]], messages[:1], ["3"])


@pytest.mark.parametrize(
    ("changes", "rows", "message"),
    [
        ({}, ROWS[:1], r"has 1 prompts to sample from, fewer than the 2 of one step"),
        ({"max_tokens": 60, "max_length": 64}, ROWS, r"no prompt .* leaves room for a reply"),
        ({}, [pair_row(0, status="failed")], r"of 1 rows none is usable"),
    ],
)
def test_too_few_prompts_are_one_line(
    changes: dict[str, Any],
    rows: list[dict[str, Any]],
    message: str,
    make_trainer: Callable[..., Any],
    world: World,
) -> None:
    with pytest.raises(DataError, match=message):
        make_trainer(RlooConfig(**FAST | changes), rows, reward_model=world.reward)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 1}, "greater than or equal to 2"),
        (
            {"batch_size": 10},
            "batch_size 10 is not a multiple of num_samples 4, .*batch_size to 12",
        ),
        ({"beta": 0}, "greater than 0"),
    ],
)
def test_settings_that_compare_nothing(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RlooConfig(**settings)


def test_a_model_that_gives_no_reward_is_one_line(
    world: World, tiny_model: Path, tmp_path: Path
) -> None:
    """Before anything is written: none, one that writes, two labels, a tokenizer of another."""
    good = world.reward.folder
    other = shutil.copytree(good, tmp_path / "other")
    stored = json.loads((other / "tokenizer.json").read_text())
    stored["model"]["vocab"] = dict(list(stored["model"]["vocab"].items())[:100])
    stored["added_tokens"] = []
    (other / "tokenizer.json").write_text(json.dumps(stored))
    two = build_tiny_classifier(tmp_path / "two", labels=2)
    cases = [
        (None, r"method 'rloo' learns from the scores of a reward model, and the job names none"),
        (tiny_model, "is not a sequence classifier"),
        (two, "is a classifier with 2 labels"),
        (other, "its tokenizer has 100 tokens, but the model has embeddings for 261"),
        (tmp_path / "none", "has no config.json"),
    ]
    for folder, message in cases:
        job = TrainingJob(
            config=RlooConfig(),
            model=tiny_model,
            dataset=write_rows(tmp_path / "rows.parquet", ROWS),
            output_dir=tmp_path / "job",
            reward_model=StartingModel(folder, None, {}) if folder else None,
        )
        with pytest.raises(ConfigError, match=message):
            check_job(job)
    assert not (tmp_path / "job").exists()


def test_another_reward_model_is_another_job(world: World, tmp_path: Path) -> None:
    dataset = write_rows(tmp_path / "rows.parquet", ROWS)
    hashes = set()
    for reward in (world.reward, StartingModel(world.policy, None, {})):
        job = TrainingJob(
            config=RlooConfig(),
            model=world.policy,
            dataset=dataset,
            output_dir=tmp_path / "job",
            reward_model=reward,
        )
        file = describe(job)
        assert read_job(write_job(file)) == file
        hashes.add(file.job_hash)
    assert len(hashes) == 2


def test_recipe_names_the_reward_model(rlaif: Rlaif, world: World, tmp_path: Path) -> None:
    """The judge labels; the reward model is for the training, and checked like a labeler's."""
    script = {"type": "scripted", "script": "tests.run.scripted_world:make_engine"}
    cases: list[tuple[dict[str, Any] | None, str]] = [
        (None, "method 'p3o' needs reward_model.engine"),
        (script, "method 'p3o' needs reward_model.engine"),
        ({"type": "reward_model", "model": POCKET["model"]}, "is not a sequence classifier"),
        ({"type": "reward_model", "model": str(world.reward.folder), "device": "cpu"}, ""),
    ]
    for number, (engine, message) in enumerate(cases):
        preference: dict[str, Any] = {"train": {"method": "p3o"}}
        if engine:
            preference["reward_model"] = {"engine": engine}
        recipe = write_recipe(tmp_path / str(number), policy=POCKET, preference=preference)
        ended = rlaif("check", recipe)
        assert ended.code == (2 if message else 0), ended.err
        assert message in ended.err and len(ended.err.splitlines()) <= 1, ended.err
        assert message or "reward_model" in ended.out
