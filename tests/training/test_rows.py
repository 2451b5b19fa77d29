"""Rows to token ids: what is refused, what is left out and counted, how KTO pairs are laid out."""

from pathlib import Path
from typing import Any

import pytest
from tests.training.builders import CHAT_TEMPLATE, build_model, pair_row, sft_row, write_rows
from pipeline.errors import ConfigError, DataError
from pipeline.training.job import TrainingJob
from pipeline.training.rows import ReplyEncoder, training_columns, unpaired_columns
from pipeline.training_config import DpoConfig, KtoConfig, SftConfig


def encoder_of(folder: Path) -> ReplyEncoder:
    from pipeline.training.loading import load_encoder

    return load_encoder(TrainingJob(config=SftConfig(), model=folder, dataset=folder, output_dir=folder))


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> ReplyEncoder:
    return encoder_of(tiny_model)


def columns_of(tmp_path: Path, config: Any, rows: list[dict[str, Any]], encoder: ReplyEncoder) -> Any:
    return training_columns(write_rows(tmp_path / "rows.parquet", rows), config, encoder)


def test_loss_covers_reply_and_end(tmp_path: Path, encoder: ReplyEncoder) -> None:
    columns, _ = columns_of(tmp_path, SftConfig(), [sft_row(1, completion="AB")], encoder)
    trained = [token for token in columns["labels"][0] if token != -100]
    assert encoder.tokenizer.decode(trained) == "AB<|end|>"
    assert encoder.tokenizer.decode(columns["input_ids"][0]).startswith("<|user|>Say 1<|end|><|assistant|>")


def test_long_rows_are_counted(tmp_path: Path, encoder: ReplyEncoder) -> None:
    rows = [pair_row(0), pair_row(1, rejected="B" * 50), pair_row(2, status="dropped")]
    columns, counts = columns_of(tmp_path, DpoConfig(max_length=40), rows, encoder)
    assert columns["row_id"] == ["pair-000"]
    assert (counts.read, counts.used, counts.too_long, counts.not_ok) == (3, 1, 1, 1)


def test_all_rows_too_long(tmp_path: Path, encoder: ReplyEncoder) -> None:
    with pytest.raises(DataError, match="raise the one"):
        columns_of(tmp_path, DpoConfig(max_length=8), [pair_row(0)], encoder)


def test_hard_labels_have_no_probability(tmp_path: Path, encoder: ReplyEncoder) -> None:
    soft, _ = columns_of(tmp_path, DpoConfig(), [pair_row(0)], encoder)
    hard, _ = columns_of(tmp_path, DpoConfig(labels="hard"), [pair_row(0)], encoder)
    assert soft["p_chosen"] == [0.9] and "p_chosen" not in hard


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"soft_label": 0.4}, r"soft_label 0.4.*swap"),
        ({"chosen": ""}, "empty reply"),
    ],
)
def test_unusable_row_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path, encoder: ReplyEncoder
) -> None:
    with pytest.raises(DataError, match=message):
        columns_of(tmp_path, DpoConfig(), [pair_row(7, **change)], encoder)


def test_dataset_mistakes_are_named(tmp_path: Path, encoder: ReplyEncoder) -> None:
    with pytest.raises(DataError, match="has no column chosen, rejected, soft_label"):
        columns_of(tmp_path, DpoConfig(), [sft_row(0)], encoder)
    with pytest.raises(DataError, match="none is usable"):
        columns_of(tmp_path, DpoConfig(), [pair_row(0, status="failed")], encoder)
    with pytest.raises(DataError, match="row_id twice"):
        columns_of(tmp_path, DpoConfig(), [pair_row(0), pair_row(0)], encoder)
    (tmp_path / "broken").write_text("not parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        training_columns(tmp_path / "broken", DpoConfig(), encoder)


def test_template_without_end_is_refused(tmp_path: Path) -> None:
    template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}" + (
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    endless = encoder_of(build_model(tmp_path / "endless", template=template))
    with pytest.raises(ConfigError, match="without an end-of-turn token"):
        columns_of(tmp_path, SftConfig(), [sft_row(0)], endless)


def test_prompt_must_be_a_prefix(tmp_path: Path) -> None:
    template = CHAT_TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|>(think){% endif %}")
    thinking = encoder_of(build_model(tmp_path / "thinking", template=template))
    with pytest.raises(DataError, match="row sft-000: .* not a prefix"):
        columns_of(tmp_path, SftConfig(), [sft_row(0)], thinking)


def test_text_after_the_end_is_dropped(tmp_path: Path) -> None:
    template = CHAT_TEMPLATE.replace("<|end|>", "<|end|>\n")
    newline = encoder_of(build_model(tmp_path / "newline", template=template))
    columns, _ = columns_of(tmp_path, SftConfig(), [sft_row(0)], newline)
    assert newline.tokenizer.decode(columns["input_ids"][0]).endswith("AAA<|end|>")


def pair_ids(number: int) -> list[dict[str, Any]]:
    return [
        {"row_id": f"{i:02}", "prompt": [i], "chosen": [100 + i], "rejected": [200 + i], "length": 2}
        for i in range(number)
    ]


@pytest.mark.parametrize(("number", "batch_size"), [(8, 4), (7, 4), (5, 2), (2, 2)])
def test_halves_of_a_pair_never_meet(number: int, batch_size: int) -> None:
    columns = unpaired_columns(pair_ids(number), batch_size, seed=3)
    assert sum(columns["label"]) == number and len(set(columns["row_id"])) == 2 * number
    for start in range(0, 2 * number, batch_size):
        prompts = [tuple(prompt) for prompt in columns["prompt_ids"][start : start + batch_size]]
        assert len(set(prompts)) == len(prompts)
    for prompt, foreign in zip(columns["prompt_ids"], columns["KL_completion_ids"]):
        assert foreign[0] % 100 != prompt[0]


def test_good_means_chosen() -> None:
    columns = unpaired_columns(pair_ids(6), 2, seed=0)
    for reply, good in zip(columns["completion_ids"], columns["label"]):
        assert (reply[0] < 200) == good


def test_unclear_pairs_are_left_out(tmp_path: Path, encoder: ReplyEncoder) -> None:
    rows = [pair_row(0, soft_label=0.52), pair_row(1), pair_row(2)]
    columns, counts = columns_of(tmp_path, KtoConfig(min_soft_label=0.55), rows, encoder)
    assert counts.unclear == 1 and len(columns["label"]) == 4


def test_packing_keeps_replies_whole(tmp_path: Path, encoder: ReplyEncoder) -> None:
    from pipeline.training.trainers import training_dataset

    config = SftConfig(packing=True, max_length=64)
    columns, _ = columns_of(tmp_path, config, [sft_row(i) for i in range(9)], encoder)
    packed = training_dataset(columns, config)
    assert len(packed) < 9 and sorted(sum(packed["seq_lengths"][:], [])) == sorted(columns["length"])
    assert all(ids[-1] in encoder.end_ids for ids in packed["input_ids"])


def test_packing_needs_flash_attention() -> None:
    from pipeline.errors import MachineError
    from pipeline.training.arguments import place

    for config in (SftConfig(device="cpu", packing=True), SftConfig(device="cpu", padding_free=True)):
        with pytest.raises(MachineError, match="need flash attention"):
            place(config)
    assert not place(SftConfig(device="cpu")).padding_free
