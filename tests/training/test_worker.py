"""Every method trained for a few steps on a random Llama, in this process."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftLora
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaForCausalLM

from pipeline.config.alarms import AlarmConfig
from pipeline.config.training import (
    DpoConfig,
    IpoConfig,
    KtoConfig,
    LoraConfig,
    OrpoConfig,
    RobustDpoConfig,
    SftConfig,
    SimpoConfig,
)
from pipeline.engines.fingerprint import TOKENIZER_FILES, file_hashes
from pipeline.errors import ConfigError, TrainingError
from pipeline.training.job import TrainingJob
from pipeline.training.launch import prove_model
from pipeline.training.worker import train as worker_train
from pipeline.training.worker.arguments import place
from pipeline.training.worker.loading import prove_savable
from pipeline.training.worker.probe import run_probe, sample_texts
from pipeline.training.worker.prove import prove_folder
from pipeline.training.worker.saving import stage_tokenizer
from tests.training.builders import pair_row, read_metrics, sft_row, write_rows
from tests.training.losses import (
    ipo_loss,
    orpo_odds_loss,
    robust_dpo_loss,
    simpo_loss,
    soft_dpo_loss,
)

Train = Callable[..., Any]
QUIET = AlarmConfig(probe_prompts=0)
FAST: dict[str, Any] = {"learning_rate": 3e-3, "warmup_share": 0.0, "max_steps": 6, "alarms": QUIET}
PAIRS = [pair_row(i) for i in range(16)]


def used(result: Any) -> Any:
    """Ids of the rows that were trained on, as a promoted policy names them."""
    return json.loads((result.model_dir.parent / "rows.json").read_text())


def test_sft_learns_the_replies(train: Train, tiny_model: Path) -> None:
    config = SftConfig(**FAST | {"alarms": AlarmConfig(probe_prompts=2, probe_tokens=4)})
    rows = [sft_row(i) for i in range(16)]
    result = train(config, [*rows, sft_row(16, completion="A" * 2000)])
    assert used(result) == [row["row_id"] for row in rows]
    losses = [row["loss"] for row in read_metrics(result)]
    assert losses[0] == pytest.approx(math.log(261), abs=0.5) and losses[-1] < losses[0] - 0.3
    assert result.num_steps == 6 and result.rows.used == 16
    assert result.probe_before.num_prompts == 2 and result.probe_after.mean_length <= 4
    # Of eight tokens the estimate is noise around a small number.
    assert result.divergence not in (None, 0.0) and result.familiarity is None
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (result.model_dir / name).read_bytes() == (tiny_model / name).read_bytes()
    assert json.loads((result.model_dir / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("config", "first_loss"),
    [
        (DpoConfig(**FAST), math.log(2)),
        (DpoConfig(**FAST, labels="hard"), math.log(2)),
        (IpoConfig(**FAST), 25.0),
        (RobustDpoConfig(**FAST), math.log(2)),
        (KtoConfig(**FAST), 0.5),
        (OrpoConfig(**FAST), None),
        (SimpoConfig(**FAST), None),
    ],
    ids=["dpo-soft", "dpo-hard", "ipo", "robust", "kto", "orpo", "simpo"],
)
def test_method_prefers_the_chosen(config: Any, first_loss: float | None, train: Train) -> None:
    """The first loss is that of equal models; then A (chosen) gains on B (rejected)."""
    result = train(config, PAIRS)
    rows = read_metrics(result)
    if first_loss is not None:
        assert rows[0]["loss"] == pytest.approx(first_loss, abs=1e-5)
    assert rows[-1]["reward_margin"] > rows[0]["reward_margin"] + 0.02
    assert result.reference_cache == ("unused" if config.method in ("orpo", "simpo") else "miss")
    assert (result.model_dir / "model.safetensors").is_file()
    assert used(result) == [row["row_id"] for row in PAIRS]


def test_undecided_labels_leave_the_margin(train: Train) -> None:
    sure = train(DpoConfig(**FAST), PAIRS, name="sure")
    torn = train(DpoConfig(**FAST), [pair_row(i, soft_label=0.5) for i in range(16)], name="torn")
    assert abs(torn.reward_margin) < 0.1 * sure.reward_margin


def test_second_run_reuses_the_reference(train: Train, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = train(DpoConfig(**FAST), PAIRS, name="first", reference_cache=cache)
    again = train(DpoConfig(**FAST | {"max_steps": 2}), PAIRS, name="again", reference_cache=cache)
    other = train(
        DpoConfig(**FAST | {"max_steps": 2}), PAIRS[:8], name="other", reference_cache=cache
    )
    states = (first.reference_cache, again.reference_cache, other.reference_cache)
    assert states == ("miss", "hit", "miss")
    assert read_metrics(again)[0]["loss"] == read_metrics(first)[0]["loss"]
    assert len(list(cache.iterdir())) == 2


def losses_and_logps(trainer: Any) -> tuple[Any, dict[str, Any]]:
    rows = [trainer.train_dataset[i] for i in range(8)]
    return trainer.model, trainer._prepare_inputs(trainer.data_collator(rows))


def gradients(trainer: Any, batch: dict[str, Any]) -> list[torch.Tensor]:
    trainer.model.zero_grad()
    trainer._compute_loss(trainer.model, dict(batch), False).backward()
    return [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]


def test_soft_trainer_follows_the_formula(make_trainer: Callable[..., Any]) -> None:
    """A certain label is TRL's DPO to the last bit; any other gives our formula."""
    trainer = make_trainer(DpoConfig(beta=0.5, batch_size=8), PAIRS)
    model, batch = losses_and_logps(trainer)
    batch["ref_chosen_logps"] = batch["ref_chosen_logps"] - 2.0
    batch["ref_rejected_logps"] = batch["ref_rejected_logps"] + 1.0
    plain = {name: value for name, value in batch.items() if name != "soft_label"}
    certain = plain | {"soft_label": torch.ones(8)}
    assert torch.equal(
        trainer._compute_loss(model, dict(plain), False),
        trainer._compute_loss(model, dict(certain), False),
    )
    for left, right in zip(gradients(trainer, plain), gradients(trainer, certain), strict=True):
        assert torch.equal(left, right)
    # At the start the policy is the reference, so the shifts above make every gap 3.
    expected = soft_dpo_loss(torch.full((8,), 3.0), batch["soft_label"], 0.5).mean()
    torch.testing.assert_close(trainer._compute_loss(model, dict(batch), False), expected)
    assert not torch.equal(gradients(trainer, batch)[0], gradients(trainer, plain)[0])


@pytest.mark.parametrize("config", [RobustDpoConfig(beta=0.5), IpoConfig(beta=0.5)])
def test_reference_losses_follow_the_formulas(
    config: Any, make_trainer: Callable[..., Any]
) -> None:
    trainer = make_trainer(config, PAIRS)
    model, batch = losses_and_logps(trainer)
    batch["ref_chosen_logps"] = batch["ref_chosen_logps"] - 2.0
    batch["ref_rejected_logps"] = batch["ref_rejected_logps"] + 1.0
    lengths = batch["completion_mask"].sum(1).chunk(2)
    expected = (
        ipo_loss(2.0 / lengths[0], -1.0 / lengths[1], 0.5)
        if config.method == "ipo"
        else robust_dpo_loss(torch.full((8,), 3.0), 0.5, config.label_smoothing)
    )
    torch.testing.assert_close(trainer._compute_loss(model, batch, False), expected.mean())


@pytest.mark.parametrize("config", [OrpoConfig(), SimpoConfig()])
def test_free_losses_follow_the_formulas(config: Any, make_trainer: Callable[..., Any]) -> None:
    trainer = make_trainer(config, PAIRS)
    model, batch = losses_and_logps(trainer)
    chosen, rejected, _, _, nll = trainer.concatenated_forward(model, batch)[:5]
    loss, _ = trainer.get_batch_loss_metrics(model, batch)
    expected = (
        nll + orpo_odds_loss(chosen, rejected, config.beta).mean()
        if config.method == "orpo"
        else simpo_loss(chosen, rejected, config.beta, config.gamma).mean()
    )
    torch.testing.assert_close(loss, expected)
    assert (batch["chosen_labels"] != -100).sum(1).tolist() == [
        len(row) for row in trainer.train_dataset[:8]["chosen_ids"]
    ]


@pytest.mark.parametrize("merge", [True, False])
def test_adapter_is_merged_or_saved(merge: bool, train: Train) -> None:
    lora = LoraConfig(r=2, alpha=4, merge=merge)
    result = train(DpoConfig(**FAST | {"learning_rate": 3e-2}, lora=lora), PAIRS)
    assert result.is_adapter is not merge and result.reward_margin > 0.02
    saved = "model.safetensors" if merge else "adapter_model.safetensors"
    assert (result.model_dir / saved).is_file() and result.trained_hash != result.model_hash


@pytest.mark.parametrize(
    ("stored", "saved"),
    [
        ({"temperature": 0.7, "top_p": 0.8}, {"temperature": 0.7, "do_sample": True}),
        ({"do_sample": False, "top_k": 3}, {"top_k": 3, "do_sample": True}),
        ({"length_penalty": 0.5, "num_beams": 1}, {}),
    ],
)
def test_a_generation_config_that_cannot_be_saved_is_repaired(
    stored: dict[str, Any], saved: dict[str, Any], train: Train, tiny_model: Path, tmp_path: Path
) -> None:
    """The folder loads; saving, after the last step, would refuse it."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    end = json.loads((folder / "config.json").read_text())["eos_token_id"]
    path = folder / "generation_config.json"
    path.write_text(json.dumps(stored | {"eos_token_id": end}))
    config = SftConfig(**FAST | {"max_steps": 1})
    result = train(config, [sft_row(i) for i in range(8)], model=folder)
    written = json.loads((result.model_dir / path.name).read_text())
    assert written.items() >= (saved | {"eos_token_id": end}).items()


def test_a_generation_config_that_cannot_be_loaded_is_one_line(
    train: Train, tiny_model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "generation_config.json").write_text('{"num_return_sequences": 3}')
    with pytest.raises(ConfigError, match=r"generation_config.json' cannot be loaded \(Greedy"):
        train(SftConfig(**FAST), [sft_row(0)], model=folder)


def test_a_config_that_cannot_be_saved_stops_before_training(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    prove_savable(model, tiny_model)
    model.config.temperature = 0.5
    with pytest.raises(ConfigError, match=r"its config.json loads and cannot be saved"):
        prove_savable(model, tiny_model)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("generation_config.json", {"num_return_sequences": 3}, r"cannot be loaded \(Greedy"),
        ("generation_config.json", {"max_new_tokens": -1}, r"config.json' cannot be loaded"),
        ("config.json", {"hidden_size": "wide"}, r"its config.json cannot be loaded"),
        ("config.json", {"model_type": "nothing"}, r"its config.json cannot be loaded .*nothing"),
    ],
)
def test_a_folder_is_proved_without_its_weights(
    file: str, change: dict[str, Any], message: str, tiny_model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    prove_folder(folder)
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=message):
        prove_folder(folder)


def test_a_check_says_what_a_training_repairs(tiny_model: Path, tmp_path: Path) -> None:
    """In a process of its own, and only where a file says how to sample."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    path = folder / "generation_config.json"
    path.write_text('{"eos_token_id": 1, "_from_model_config": true}')
    assert prove_model(folder) == ""
    path.write_text('{"eos_token_id": 1, "top_p": 0.4}')
    assert "generation_config.json is repaired (GenerationConfig is invalid" in prove_model(folder)


def test_a_probe_that_fails_loses_no_training(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def run_probe(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("no memory left for a reply")

    monkeypatch.setattr(worker_train, "run_probe", run_probe)
    config = SftConfig(**FAST | {"alarms": AlarmConfig(probe_prompts=2, probe_tokens=4)})
    result = train(config, [sft_row(i) for i in range(8)])
    assert result.probe_after is None and (result.model_dir / "model.safetensors").is_file()
    (alarm,) = [alarm for alarm in result.alarms if alarm.name == "unmeasured"]
    assert "was not probed (RuntimeError('no memory left for a reply'))" in alarm.message


def test_weights_on_several_gpus_are_not_probed_and_say_so(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process has a whole model that could write; a gate that counts the probes counts this."""
    monkeypatch.setattr(worker_train, "place", lambda c: replace(place(c), sharded=True))
    config = SftConfig(**FAST | {"alarms": AlarmConfig(probe_prompts=2, probe_tokens=4)})
    result = train(config, [sft_row(i) for i in range(8)])
    assert (result.probe_before, result.probe_after, result.divergence) == (None, None, None)
    (alarm,) = result.alarms
    assert (
        alarm.name == "unmeasured" and "its weights are spread over several GPUs" in alarm.message
    )
    assert train(SftConfig(**FAST), [sft_row(i) for i in range(8)], name="quiet").alarms == ()


@pytest.mark.parametrize("adapter", [False, True])
def test_probes_sample_the_model_itself(tiny_model: Path, adapter: bool) -> None:
    """At temperature 1 from all 261 tokens, whatever generation_config.json says. The weights are
    random and small, so about 1 - 50 / 261 = 0.8 of the tokens are not among the 50 likeliest.
    """
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    if adapter:
        model = get_peft_model(model, PeftLora(target_modules=["q_proj"]))
    prompts, ends, pad = [[1, 2]] * 200, frozenset({model.config.eos_token_id}), 256
    with torch.inference_mode():
        likeliest = model(torch.tensor(prompts[:1])).logits[0, -1].topk(50).indices.tolist()
    drawn = sample_texts(model, prompts, ends, pad, 3, seed=0)
    assert fmean(reply[0] not in likeliest for _, reply in drawn) > 0.5
    inner = model.get_base_model() if adapter else model
    inner.generation_config = folder = GenerationConfig(
        do_sample=True, temperature=0.1, top_p=0.1, top_k=1, repetition_penalty=9.0,
        no_repeat_ngram_size=1, suppress_tokens=list(range(200)),
    )  # fmt: skip
    assert sample_texts(model, prompts, ends, pad, 3, seed=0) == drawn
    assert inner.generation_config is folder
    greedy = run_probe(model, prompts[:1], ends, pad, 3)
    inner.generation_config = GenerationConfig()
    assert run_probe(model, prompts[:1], ends, pad, 3) == greedy


def test_a_model_that_cannot_be_saved_leaves_its_weights(
    train: Train, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a library finds wrong after the last step, what was paid for is on disk."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise ValueError("this configuration is not valid\nfor a reason")

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", refuse)
    with pytest.raises(TrainingError, match=r"cannot be saved \(this configuration is not valid\)"):
        train(SftConfig(**FAST), [sft_row(i) for i in range(8)])
    kept = load_file(tmp_path / "job" / "weights.safetensors")
    start = load_file(tiny_model / "model.safetensors")
    assert kept.keys() == start.keys()
    assert any(not torch.equal(kept[n].to(start[n].dtype), start[n]) for n in kept)
    assert not (tmp_path / "job" / "model.tmp").exists()


def test_every_chat_template_of_the_model_is_kept(tiny_model: Path, tmp_path: Path) -> None:
    """They are part of its fingerprint, so the trained model would be another one without them."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/tool.jinja").write_text("{{ messages }}")
    dataset = write_rows(tmp_path / "rows.parquet", PAIRS)
    job = TrainingJob(
        config=DpoConfig(**FAST), model=folder, dataset=dataset, output_dir=tmp_path / "job"
    )
    stage_tokenizer(job)
    staged = file_hashes(tmp_path / "job/model.tmp")
    assert staged == file_hashes(folder, TOKENIZER_FILES) and len(staged) >= 4


def test_broken_loss_stops_training(train: Train) -> None:
    config = SftConfig(**FAST | {"learning_rate": 1e20, "max_grad_norm": 1e20})
    with pytest.raises(TrainingError, match=r"loss is nan at step .* lower learning_rate"):
        train(config, [sft_row(i) for i in range(16)])


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(28, "No space left on device"), True),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 8 vs 4"), True),
        (ValueError("I/O error: No space left on device (os error 28)"), True),
        (OSError(13, "Permission denied"), False),
    ],
)
def test_full_disk_is_recognized(error: Exception, full: bool) -> None:
    from pipeline.training.worker.saving import is_disk_full

    wrapped = RuntimeError("while saving")
    wrapped.__cause__ = error
    assert is_disk_full(error) is full and is_disk_full(wrapped) is full


def test_cut_reply_is_refused(make_trainer: Callable[..., Any]) -> None:
    from pipeline.errors import ConfigError
    from pipeline.training.worker.optimize import check_first_batch

    trainer = make_trainer(DpoConfig(), PAIRS)
    trainer.data_collator.max_length = 11
    with pytest.raises(ConfigError, match="first batch trains a reply that ends with"):
        check_first_batch(trainer, frozenset({trainer.processing_class.eos_token_id}))
