"""Rows to token ids: what is refused, what is left out and counted."""

import math
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.training import DpoConfig, KtoConfig, SftConfig
from pipeline.errors import ConfigError, DataError
from pipeline.training.job import TrainingJob
from pipeline.training.worker.encoding import ReplyEncoder, training_columns
from tests.training.builders import (
    CHAT_TEMPLATE,
    build_model,
    feedback_row,
    pair_row,
    sft_row,
    write_rows,
)


def encoder_of(folder: Path) -> ReplyEncoder:
    from pipeline.training.worker.loading import load_encoder

    return load_encoder(
        TrainingJob(config=SftConfig(), model=folder, dataset=folder, output_dir=folder)
    )


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> ReplyEncoder:
    return encoder_of(tiny_model)


def columns_of(
    tmp_path: Path, config: Any, rows: list[dict[str, Any]], encoder: ReplyEncoder
) -> Any:
    return training_columns(write_rows(tmp_path / "rows.parquet", rows), config, encoder)


def kto_columns(
    tmp_path: Path,
    config: KtoConfig,
    pairs: list[dict[str, Any]],
    judged: list[dict[str, Any]],
    encoder: ReplyEncoder,
) -> Any:
    feedback = write_rows(tmp_path / "feedback.parquet", judged)
    return training_columns(write_rows(tmp_path / "rows.parquet", pairs), config, encoder, feedback)


def test_loss_covers_reply_and_end(tmp_path: Path, encoder: ReplyEncoder) -> None:
    columns, _ = columns_of(tmp_path, SftConfig(), [sft_row(1, completion="AB")], encoder)
    trained = [token for token in columns["labels"][0] if token != -100]
    assert encoder.tokenizer.decode(trained) == "AB<|end|>"
    assert encoder.tokenizer.decode(columns["input_ids"][0]).startswith(
        "<|user|>Say 1<|end|><|assistant|>"
    )


def test_long_rows_are_counted(tmp_path: Path, encoder: ReplyEncoder) -> None:
    rows = [pair_row(0), pair_row(1, rejected="B" * 50), pair_row(2, status="dropped")]
    columns, counts = columns_of(tmp_path, DpoConfig(max_length=40), rows, encoder)
    assert columns["row_id"] == ["pair-000"]
    assert (counts.read, counts.used, counts.too_long, counts.not_ok) == (3, 1, 1, 1)


def test_all_rows_too_long(tmp_path: Path, encoder: ReplyEncoder) -> None:
    with pytest.raises(DataError, match="raise the first"):
        columns_of(tmp_path, DpoConfig(max_length=8), [pair_row(0)], encoder)


def test_hard_labels_have_no_probability(tmp_path: Path, encoder: ReplyEncoder) -> None:
    soft, _ = columns_of(tmp_path, DpoConfig(), [pair_row(0)], encoder)
    hard, _ = columns_of(tmp_path, DpoConfig(labels="hard"), [pair_row(0)], encoder)
    assert soft["soft_label"] == [0.9] and "soft_label" not in hard


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"soft_label": 0.4}, r"soft_label 0.4.*swap"),
        ({"soft_label": math.nan}, r"soft_label nan"),
        ({"soft_label": None}, r"soft_label None"),
        ({"chosen": ""}, "an empty reply"),
        ({"chosen": None}, "an empty reply"),
        ({"messages": []}, "no messages"),
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
    with pytest.raises(DataError, match=r"row sft-000: .* not a prefix"):
        columns_of(tmp_path, SftConfig(), [sft_row(0)], thinking)


def test_text_after_the_end_is_dropped(tmp_path: Path) -> None:
    template = CHAT_TEMPLATE.replace("<|end|>", "<|end|>\n")
    newline = encoder_of(build_model(tmp_path / "newline", template=template))
    columns, _ = columns_of(tmp_path, SftConfig(), [sft_row(0)], newline)
    assert newline.tokenizer.decode(columns["input_ids"][0]).endswith("AAA<|end|>")


def test_unclear_pairs_are_left_out(tmp_path: Path, encoder: ReplyEncoder) -> None:
    rows = [pair_row(0, soft_label=0.52), pair_row(1), pair_row(2)]
    columns, counts = columns_of(tmp_path, KtoConfig(min_soft_label=0.55), rows, encoder)
    assert counts.unclear == 1 and len(columns["label"]) == 4


def test_feedback_is_read_beside_the_pairs(tmp_path: Path, encoder: ReplyEncoder) -> None:
    """Two replies of each of 2 pairs and one of each of 2 rows of feedback; every row is
    counted.
    """
    judged = [
        feedback_row(1),
        feedback_row(2, label=False),
        feedback_row(3, weight=0.5),
        feedback_row(4, completion="C" * 90),
        feedback_row(5, status="dropped"),
    ]
    pairs = [pair_row(0), pair_row(1), pair_row(2, soft_label=0.5), pair_row(3, chosen="A" * 90)]
    config = KtoConfig(min_weight=0.6, max_length=60)
    columns, counts = kto_columns(tmp_path, config, pairs, judged, encoder)
    assert dict(zip(columns["row_id"], columns["label"], strict=True)) == {
        "pair-000:chosen": True,
        "pair-000:rejected": False,
        "pair-001:chosen": True,
        "pair-001:rejected": False,
        "feedback-001": True,
        "feedback-002": False,
    }
    at = columns["row_id"].index("feedback-002")
    assert encoder.tokenizer.decode(columns["completion_ids"][at]) == "CCCCC<|end|>"
    assert (counts.unclear, counts.weak, counts.too_long, counts.not_ok) == (1, 1, 2, 1)
    assert (counts.read, counts.used, counts.feedback) == (9, 4, 2)
    assert (
        counts.read == counts.not_ok + counts.too_long + counts.unclear + counts.weak + counts.used
    )
    assert counts.replies.model_dump() == {
        "read": 6,
        "contradicted": 0,
        "repeated": 0,
        "desirable": 3,
        "undesirable": 3,
    }


def test_reply_of_a_pair_that_users_disliked(tmp_path: Path, encoder: ReplyEncoder) -> None:
    """The chosen reply of pair 1 got a thumb down, the rejected one of pair 2 too."""
    pairs = [pair_row(0), pair_row(1), pair_row(2)]
    judged = [
        feedback_row(
            1, messages=pairs[1]["messages"], completion=pairs[1]["chosen"] + "\n", label=False
        ),
        feedback_row(
            2, messages=pairs[2]["messages"], completion=pairs[2]["rejected"], label=False
        ),
    ]
    columns, counts = kto_columns(tmp_path, KtoConfig(), pairs, judged, encoder)
    assert sorted(columns["row_id"]) == [
        "pair-000:chosen",
        "pair-000:rejected",
        "pair-001:rejected",
        "pair-002:chosen",
        "pair-002:rejected",
    ]
    assert counts.replies.model_dump() == {
        "read": 8,
        "contradicted": 2,
        "repeated": 1,
        "desirable": 2,
        "undesirable": 3,
    }


def test_feedback_alone_is_enough(tmp_path: Path, encoder: ReplyEncoder) -> None:
    unclear = [pair_row(0, soft_label=0.5)]
    judged = [feedback_row(1), feedback_row(2, label=False)]
    columns, counts = kto_columns(tmp_path, KtoConfig(), unclear, judged, encoder)
    assert sorted(columns["row_id"]) == ["feedback-001", "feedback-002"]
    assert (counts.unclear, counts.used, counts.feedback) == (1, 2, 2)
    with pytest.raises(
        DataError, match=r"2 desirable and 0 undesirable replies .* KTO needs both sides"
    ):
        kto_columns(tmp_path, KtoConfig(), unclear, [feedback_row(1), feedback_row(2)], encoder)
    with pytest.raises(DataError, match="1 below min_soft_label, 2 below min_weight"):
        kto_columns(
            tmp_path,
            KtoConfig(min_weight=1),
            unclear,
            [feedback_row(1, weight=0.5), feedback_row(2, weight=0.5)],
            encoder,
        )
    with pytest.raises(
        DataError, match=r"rows.parquet' and '.*feedback.parquet': of 2 rows none is usable"
    ):
        kto_columns(
            tmp_path,
            KtoConfig(),
            [pair_row(0, status="failed")],
            [feedback_row(1, status="dropped")],
            encoder,
        )


def test_feedback_needs_its_columns(tmp_path: Path, encoder: ReplyEncoder) -> None:
    with pytest.raises(DataError, match=r"feedback.parquet' has no column label, weight"):
        kto_columns(tmp_path, KtoConfig(), [pair_row(0)], [sft_row(0)], encoder)


@pytest.mark.parametrize(
    "change", [{"label": None}, {"weight": None}, {"weight": math.nan}, {"weight": 2.0}]
)
def test_feedback_without_a_verdict_is_refused(
    change: dict[str, Any], tmp_path: Path, encoder: ReplyEncoder
) -> None:
    """Else a label that nobody gave would make a reply a bad one."""
    with pytest.raises(DataError, match=r"row feedback-001 .* has (label|weight)"):
        judged = [feedback_row(0), feedback_row(1, **change)]
        kto_columns(tmp_path, KtoConfig(), [pair_row(0)], judged, encoder)


def test_packing_keeps_replies_whole(tmp_path: Path, encoder: ReplyEncoder) -> None:
    from pipeline.training.worker.trainers import packed_dataset

    config = SftConfig(packing=True, max_length=64)
    columns, _ = columns_of(tmp_path, config, [sft_row(i) for i in range(9)], encoder)
    packed = packed_dataset(columns, config)
    lengths = [length for row in packed["seq_lengths"] for length in row]
    assert len(packed) < 9 and sorted(lengths) == sorted(columns["length"])
    assert all(ids[-1] in encoder.end_ids for ids in packed["input_ids"])


def test_spelled_special_tokens_are_learned_as_text(encoder: ReplyEncoder) -> None:
    """One end of turn, the template's own, and the rest decodes to what was written."""
    text = "ok<|end|><|user|>more<|end|><|assistant|>bad"
    messages = [{"role": "user", "content": "hi<|end|>"}]
    prompt = encoder.prompt(messages)
    ids = encoder.reply(messages, prompt, text, "row-1")
    assert [i for i in ids if i in encoder.tokenizer.all_special_ids] == [ids[-1]]
    assert encoder.tokenizer.decode(ids[:-1]) == text
    tame = encoder.prompt([{"role": "user", "content": "hi"}])
    assert sum(i in encoder.tokenizer.all_special_ids for i in prompt) == sum(
        i in encoder.tokenizer.all_special_ids for i in tame
    )


def thinking_model(folder: Path, template: str = CHAT_TEMPLATE) -> ReplyEncoder:
    """The tiny tokenizer with `<think>` and `</think>` as tokens."""
    from transformers import AutoTokenizer

    build_model(folder, template=template)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.save_pretrained(folder)
    return encoder_of(folder)


def test_a_thought_to_learn_begins_and_ends_with_the_tokens(tmp_path: Path) -> None:
    """What the thought or the reply spells is text; the two marks around the thought are tokens."""
    encoder = thinking_model(tmp_path / "m")
    reply = "<think>\nSay </think> or <|end|>?\n</think>\n\nNot <think>."
    columns, _ = columns_of(tmp_path, SftConfig(), [sft_row(1, completion=reply)], encoder)
    trained = [token for token in columns["labels"][0] if token != -100]
    assert encoder.tokenizer.decode(trained) == f"{reply}<|end|>"
    ids = encoder.tokenizer.convert_tokens_to_ids(["<think>", "</think>", "<|end|>"])
    assert [trained.count(i) for i in ids] == [1, 1, 1]
    assert trained[0] == ids[0] and trained[-1] == ids[2]


def test_a_template_that_drops_a_thought_cannot_learn_it(tmp_path: Path) -> None:
    template = CHAT_TEMPLATE.replace("m.content", "m.content.split('</think>')[-1]")
    encoder = thinking_model(tmp_path / "m", template)
    with pytest.raises(
        DataError, match="sft-001 has a thought, which the chat template leaves out"
    ):
        columns_of(
            tmp_path, SftConfig(), [sft_row(1, completion="<think>\nHm.\n</think>\n\nYes")], encoder
        )


def test_more_rows_have_those_of_fewer(tmp_path: Path, encoder: ReplyEncoder) -> None:
    rows = [pair_row(i) for i in range(9)]
    drawn = []
    for number in (3, 5, 9, 20):
        columns, counts = columns_of(tmp_path, DpoConfig(max_rows=number), rows, encoder)
        assert counts.read == 9 and counts.used == min(number, 9) == 9 - counts.undrawn
        drawn.append(set(columns["row_id"]))
    assert drawn[0] < drawn[1] < drawn[2] == drawn[3]
    assert "max_rows" not in DpoConfig().model_dump()
