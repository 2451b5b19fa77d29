"""Joined rows compute what padded rows compute: losses, gradients, reference, packed rows.

Float32 on the CPU: relative differences come from the order of sums alone, below 1e-5.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import trl.trainer.utils
from torch import Tensor
from transformers import AttentionInterface, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from pipeline.config.training import (
    DpoConfig,
    IpoConfig,
    KtoConfig,
    LoraConfig,
    OrpoConfig,
    RobustDpoConfig,
    SftConfig,
)
from pipeline.errors import ConfigError
from pipeline.training.job import TrainingJob, describe
from pipeline.training.worker import loading
from pipeline.training.worker.arguments import place
from pipeline.training.worker.joined_rows import (
    ROW_BY_ROW,
    VARLEN,
    joined,
    row_by_row_attention,
    row_layout,
    varlen_attention,
)
from pipeline.training.worker.loading import ready
from tests.training.builders import pair_row, read_metrics, sft_row, write_rows
from tests.training.losses import soft_dpo_loss

MakeTrainer = Callable[..., Any]
PAIRS = [pair_row(i, soft_label=(0.5, 0.7, 0.93, 1.0)[i % 4]) for i in range(8)]
NO_ALARMS: dict[str, Any] = {"probe_prompts": 0}


def first_step(trainer: Any) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of the whole data set as one batch, after moving the policy a little."""
    model = trainer.model
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(PAIRS))])
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return loss.item(), gradients


@pytest.mark.parametrize(
    "config",
    [
        DpoConfig(),
        DpoConfig(labels="hard", gradient_checkpointing=True),
        IpoConfig(),
        RobustDpoConfig(),
        DpoConfig(lora=LoraConfig(r=2), gradient_checkpointing=True),
    ],
    ids=["soft", "hard-checkpointing", "ipo", "robust", "lora-checkpointing"],
)
def test_loss_and_gradients_equal_those_of_padded_rows(
    config: Any, make_trainer: MakeTrainer
) -> None:
    results = []
    for padding_free in (False, True):
        trainer = make_trainer(config.model_copy(update={"padding_free": padding_free}), PAIRS)
        logps = [trainer.train_dataset[name][:] for name in ("ref_chosen_logps",)]
        results.append((*first_step(trainer), *logps))
    (padded, padded_gradients, padded_logps), (loss, gradients, logps) = results
    assert loss == pytest.approx(padded, rel=1e-5) and loss != pytest.approx(0.6931, abs=1e-3)
    assert logps == pytest.approx(padded_logps, rel=1e-5)
    assert gradients.keys() == padded_gradients.keys() and gradients
    for name, gradient in gradients.items():
        error = (gradient - padded_gradients[name]).norm() / padded_gradients[name].norm()
        assert error < 1e-4, name


def test_soft_labels_equal_the_formula_in_float64(
    make_trainer: MakeTrainer, tiny_model: Path
) -> None:
    """-p log s(z) - (1 - p) log s(-z), each row alone, whole logits, double precision."""
    trainer = make_trainer(DpoConfig(padding_free=True, beta=0.3), PAIRS)
    rows = [trainer.train_dataset[i] for i in range(len(PAIRS))]
    loss, gradients = first_step(trainer)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).double()
    model.load_state_dict({k: v.double() for k, v in trainer.model.state_dict().items()})

    def logp(row: dict[str, Any], side: str) -> Tensor:
        ids = torch.tensor([row["prompt_ids"] + row[f"{side}_ids"]])
        per_token = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
        return per_token[len(row["prompt_ids"]) - 1 :].sum() - row[f"ref_{side}_logps"]

    gaps = torch.stack([logp(row, "chosen") - logp(row, "rejected") for row in rows])
    labels = torch.tensor([row["soft_label"] for row in rows], dtype=torch.float64)
    expected = soft_dpo_loss(gaps, labels, 0.3).mean()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        error = (gradients[name] - parameter.grad).norm() / parameter.grad.norm()
        assert error < 1e-4, name


def test_training_starts_at_log_two_and_learns(train: Callable[..., Any]) -> None:
    fields: dict[str, Any] = {"learning_rate": 3e-3, "warmup_share": 0.0, "max_steps": 6}
    config = DpoConfig(**fields, padding_free=True, alarms=NO_ALARMS)
    metrics = read_metrics(train(config, PAIRS))
    padded = read_metrics(train(config.model_copy(update={"padding_free": False}), PAIRS, name="p"))
    assert metrics[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert metrics[-1]["reward_margin"] > metrics[0]["reward_margin"] + 0.02
    # The same tokens are counted, and padding never was.
    assert metrics[-1]["tokens"] > 0 and padded[-1]["tokens"] > 0


def test_tiles_of_the_head_change_nothing(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tile size has the same loss; a training on the CPU sets TRL's to its own."""
    fields: dict[str, Any] = {"learning_rate": 3e-3, "warmup_share": 0.0, "max_steps": 2}
    losses = []
    for size in (1_000_000, 8):
        monkeypatch.setattr(loading, "TILE", size)
        metrics = read_metrics(train(DpoConfig(**fields, alarms=NO_ALARMS), PAIRS, name=f"{size}"))
        assert size == trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE
        losses.append([row["loss"] for row in metrics])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about its own libraries
def test_layers_are_compiled_once(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One graph for both layers, the reference and the steps; probes do without. The loss starts
    at log 2 and falls as it does uncompiled.
    """
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    plain_compile = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda layer, **how: plain_compile(layer, backend=backend, **how),
    )
    fields: dict[str, Any] = {"learning_rate": 3e-3, "warmup_share": 0.0, "max_steps": 3}
    fields["alarms"] = {"probe_prompts": 2, "probe_tokens": 4}
    config = DpoConfig(**fields, padding_free=True, lora=LoraConfig(r=2), batch_size=3)
    config = config.model_copy(update={"precompute_reference_batch_size": 3})
    plain = read_metrics(train(config, PAIRS))
    assert not graphs
    compiled = read_metrics(train(config.model_copy(update={"compile": True}), PAIRS, name="c"))
    assert len(graphs) == 1
    assert compiled[0]["loss"] == pytest.approx(0.693147, abs=1e-6)
    for one, other in zip(plain, compiled, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-4)


def test_packed_rows_do_not_mix(train: Callable[..., Any], tiny_model: Path) -> None:
    """One step on packed rows has the loss of the rows one by one, weighed by their tokens."""
    rows = [sft_row(i) for i in range(9)]
    fields: dict[str, Any] = {"max_steps": 1, "max_length": 64, "batch_size": 16}
    losses = [
        read_metrics(train(SftConfig(**fields, **change, alarms=NO_ALARMS), rows, name=name))[0]
        for name, change in (
            ("plain", {}),
            ("joined", {"padding_free": True}),
            ("packed", {"packing": True}),
        )
    ]
    assert losses[0]["loss"] == pytest.approx(losses[1]["loss"], rel=1e-5)
    assert losses[0]["loss"] == pytest.approx(losses[2]["loss"], rel=1e-5)
    assert losses[0]["grad_norm"] == pytest.approx(losses[2]["grad_norm"], rel=1e-4)


def test_layout_by_hand() -> None:
    """Two rows of 2 and 3 tokens in 3 columns: flat places 0, 1 and 3, 4, 5."""
    layout = row_layout([2, 3], 3)
    assert layout["row_index"].tolist() == [0, 1, 3, 4, 5]
    assert layout["position_ids"].tolist() == [[0, 1, 0, 1, 2]]
    assert layout["cu_seq_lens"].tolist() == [0, 2, 5] and layout["max_length"] == 3


def test_no_row_predicts_the_start_of_the_next() -> None:
    """Even where the first token of a row carries a label."""
    seen = {}

    def model(**kwargs: Any) -> dict[str, Tensor]:
        seen.update(kwargs)
        return {"log_probs": -torch.arange(1.0, 5.0)[None]}

    ids = torch.tensor([[7, 8, 0], [4, 5, 6]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    layout = row_layout([2, 3], 3)
    outputs = joined(model)(input_ids=ids, labels=ids, attention_mask=mask, **layout)
    assert seen["input_ids"].tolist() == [[7, 8, 4, 5, 6]]
    assert seen["labels"].tolist() == [[-100, 8, -100, 5, 6]]
    # Joined place i holds the value of token i + 1; that of the second row's first is left out.
    assert outputs["log_probs"].tolist() == [[-1.0, 0.0], [-3.0, -4.0]]


def _scores(q: Tensor, k: Tensor, scale: float | None, window: list[int]) -> tuple[Tensor, float]:
    """Shares of a row's attention, whole, of shape (heads, tokens, tokens); and the scale."""
    scale = scale or q.shape[-1] ** -0.5
    distance = torch.arange(q.shape[1])[:, None] - torch.arange(q.shape[1])
    hidden = (distance < 0) | ((distance > window[0]) if window[0] >= 0 else distance < 0)
    return (q @ k.transpose(1, 2) * scale).masked_fill(hidden, -torch.inf).softmax(-1), scale


def _rows(ends: Tensor, *tensors: Tensor) -> Iterator[list[Tensor]]:
    """Each row of tensors of shape (tokens, heads, width), as (heads, tokens of the row, width)."""
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        yield [t[start:end].transpose(0, 1) for t in tensors]


@pytest.fixture(scope="module")
def kernel_on_cpu() -> None:
    """The operators exist on CUDA alone; here they get a plain body, forward and backward."""
    from torch.nn.attention import varlen

    def forward(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, *rest: Any, **named: Any) -> Any:
        # rest: ends of the keys, two lengths, causal, scale, window
        outputs = []
        for one, key, value in _rows(ends, q, k, v):
            key, value = (t.repeat_interleave(q.shape[1] // k.shape[1], 0) for t in (key, value))
            shares, _ = _scores(one, key, rest[4], rest[5])
            outputs.append((shares @ value).transpose(0, 1))
        state = torch.zeros(2, dtype=torch.uint64)
        return torch.cat(outputs).contiguous(), torch.zeros(q.shape[1], q.shape[0]), state

    def backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Any:
        # rest: output, log-sum-exp, ends twice, two lengths, causal, state, scale, window
        heads, groups = k.shape[1], q.shape[1] // k.shape[1]
        parts: tuple[list[Tensor], ...] = ([], [], [])
        for up, one, key, value in _rows(rest[2], grad, q, k, v):
            key, value = (t.repeat_interleave(groups, 0) for t in (key, value))
            shares, scale = _scores(one, key, rest[8], rest[9])
            slope = up @ value.transpose(1, 2)
            slope = shares * (slope - (slope * shares).sum(-1, keepdim=True)) * scale
            parts[0].append((slope @ key).transpose(0, 1))
            for part, wide in ((parts[1], slope.mT @ one), (parts[2], shares.mT @ up)):
                part.append(wide.unflatten(0, (heads, groups)).sum(1).transpose(0, 1))
        return tuple(torch.cat(part).contiguous() for part in parts)

    varlen._varlen_attn.register_kernel("cpu")(forward)
    varlen._varlen_attn_backward.register_kernel("cpu")(backward)


def small_llama(**changes: Any) -> Any:
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **changes,
    )
    return LlamaForCausalLM(config)


# torch looks at .grad of what it traces, and would warn in its own code.
@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("attention", "compiled"),
    [(VARLEN, False), (ROW_BY_ROW, False), pytest.param(VARLEN, True, marks=pytest.mark.slow)],
)
def test_joined_rows_equal_rows_alone(
    attention: str, autocast: bool, compiled: bool, kernel_on_cpu: None
) -> None:
    """Grouped heads, three rows in one sequence: logits and gradients of each row by itself."""
    model = small_llama()
    rows = [torch.arange(n) * 7 % 64 for n in (5, 9, 3)]
    weights = [p for p in model.parameters() if p.requires_grad]

    def run(**inputs: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits: Tensor = model(**inputs, use_cache=False).logits.float()
        return logits[0]

    alone = torch.cat([run(input_ids=row[None]) for row in rows])
    expected = torch.autograd.grad(alone.square().mean(), weights)
    model.set_attn_implementation(attention)
    if compiled:
        for layer in model.model.layers:
            layer.compile(dynamic=True, backend="aot_eager")
    layout = row_layout([5, 9, 3], 9)
    ends, longest = layout["cu_seq_lens"], layout["max_length"]
    together = run(
        input_ids=torch.cat(rows)[None],
        position_ids=layout["position_ids"],
        cu_seq_lens_q=ends,
        cu_seq_lens_k=ends,
        max_length_q=longest,
        max_length_k=longest,
    )
    gradients = torch.autograd.grad(together.square().mean(), weights)
    limit = 2e-2 if autocast else 1e-5
    assert (together - alone).norm() / alone.norm() < limit
    for gradient, value in zip(gradients, expected, strict=True):
        assert (gradient - value).norm() / value.norm() < limit


@pytest.mark.parametrize("attention", [varlen_attention, row_by_row_attention])
def test_sliding_window_and_other_batches(
    attention: Callable[..., tuple[Tensor, None]], kernel_on_cpu: None
) -> None:
    """A window of 2 sees itself and one token before; without row ends SDPA answers."""
    torch.manual_seed(1)
    module = small_llama().model.layers[0].self_attn
    q, k, v = (torch.randn(1, heads, 6, 8) for heads in (4, 2, 2))
    ends = torch.tensor([0, 4, 6], dtype=torch.int32)
    out, _ = attention(
        module, q, k, v, None, scaling=0.3, sliding_window=2, cu_seq_lens_q=ends, max_length_q=4
    )
    head = torch.softmax(torch.stack([q[0, 0, 3] @ k[0, 0, j] * 0.3 for j in (2, 3)]), 0)
    assert torch.allclose(out[0, 3, 0], head[0] * v[0, 0, 2] + head[1] * v[0, 0, 3], atol=1e-6)
    assert torch.allclose(out[0, 4, 0], v[0, 0, 4], atol=1e-6)
    plain, _ = attention(module, q, k, v, None, scaling=0.3)
    assert plain.shape == out.shape and not torch.allclose(plain, out)
    with pytest.raises(ConfigError, match="soft cap"):
        attention(module, q, k, v, None, cu_seq_lens_q=ends, softcap=30.0)


@pytest.mark.parametrize("attention", [VARLEN, ROW_BY_ROW])
def test_padded_batches_keep_their_mask(attention: str, kernel_on_cpu: None) -> None:
    """Generation pads on the left: the model answers as with SDPA."""
    model = small_llama().eval()
    ids = torch.tensor([[0, 0, 5, 6], [1, 2, 3, 4]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    expected = model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False)
    model.set_attn_implementation(attention)
    answer = model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False)
    assert torch.equal(answer, expected)


def leaky(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **kwargs: Any) -> Any:
    """An attention that looks across the rows, as a recurrent layer would."""
    group = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(group, 1) for t in (k, v))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out.transpose(1, 2), None


def test_models_that_mix_rows_are_padded_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded where the recipe leaves it open, with the attention that they came with."""
    model, placement = ready(small_llama(), place(DpoConfig(device="cpu")), DpoConfig())
    assert placement.padding_free and model.config._attn_implementation == ROW_BY_ROW
    monkeypatch.setitem(AttentionInterface._global_mapping, ROW_BY_ROW, leaky)
    model, placement = ready(small_llama(), place(DpoConfig(device="cpu")), DpoConfig())
    assert not placement.padding_free and model.config._attn_implementation == "sdpa"
    config = DpoConfig(device="cpu", padding_free=True)
    with pytest.raises(ConfigError, match="LlamaForCausalLM one row changes the results"):
        ready(small_llama(), place(config), config)


def test_where_rows_are_joined() -> None:
    """On the CPU wherever the method can, unless the layers are compiled."""
    for config in (SftConfig(), DpoConfig(), IpoConfig(), RobustDpoConfig()):
        placement = place(config.model_copy(update={"device": "cpu"}))
        assert placement.padding_free and placement.attention == ROW_BY_ROW
        compiled = place(config.model_copy(update={"device": "cpu", "compile": True}))
        assert not compiled.padding_free and compiled.attention is None
    for other in (KtoConfig(device="cpu"), OrpoConfig(device="cpu")):
        assert not place(other).padding_free and place(other).attention is None
    packed = place(SftConfig(device="cpu", packing=True, compile=True))
    assert packed.padding_free and packed.attention is None  # a mask over the whole sequence


def test_joining_and_compiling_leave_the_job_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    """A finished DPO job is not trained again because the rows are joined now."""
    rows = write_rows(tmp_path / "rows.parquet", PAIRS)

    def job_hash(config: Any) -> str:
        job = TrainingJob(config=config, model=tiny_model, dataset=rows, output_dir=tmp_path)
        return describe(job).job_hash

    assert job_hash(DpoConfig()) == job_hash(DpoConfig(padding_free=True, compile=True))
    assert job_hash(SftConfig()) != job_hash(SftConfig(padding_free=True))
