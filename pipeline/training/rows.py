"""Data set -> token ids: what the model will really see, checked row by row before training.

In:  the job's Parquet file and the model's tokenizer
Out: columns of token ids for a trainer, and what became of every row

Each row must satisfy three things, or training would be wrong without a sign:
the tokens of the prompt are a prefix of those of prompt and reply (else the model learns another
context than it meets at inference); the reply ends with an end-of-turn token (else it never
learns to stop); it fits `max_length` (else the end is what gets cut). The first two are errors,
the third leaves the row out and counts it. What a template prints after the end-of-turn token is
dropped: no engine ever generates it.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, DataError
from pipeline.training.job import RowCounts
from pipeline.training.methods import method_of, wants_soft_labels
from pipeline.training_config import TrainingConfig

NEEDED = {
    "completion": ("row_id", "messages", "completion"),
    "pairs": ("row_id", "messages", "chosen", "rejected", "soft_label"),
    "unpaired": ("row_id", "messages", "chosen", "rejected", "soft_label"),
}
"""Columns that a data set must have, by shape."""

Columns = dict[str, list[Any]]
Ids = list[int]


@dataclass(frozen=True)
class ReplyEncoder:
    """Turns a conversation and a reply into token ids, the way the engine will."""

    tokenizer: Any
    """A transformers tokenizer with a chat template."""
    end_ids: frozenset[int]
    """Tokens that end a turn at inference."""
    template_args: dict[str, Any]

    def prompt(self, messages: Sequence[dict[str, str]]) -> Ids:
        """Ids of the conversation up to where the assistant starts to write."""
        return self._render(list(messages), add_generation_prompt=True)

    def reply(self, messages: Sequence[dict[str, str]], prompt: Ids, text: str, row_id: str) -> Ids:
        """Ids of the assistant's reply, up to and including the end-of-turn token.

        Raises:
            DataError: this row's reply cannot be learned as it will be generated.
            ConfigError: the chat template ends replies without an end-of-turn token.
        """
        if not text:
            raise DataError(f"row {row_id} has an empty reply; drop such rows before training")
        full = self._render([*messages, {"role": "assistant", "content": text}])
        if full[: len(prompt)] != prompt:
            raise DataError(
                f"row {row_id}: the tokens of the prompt are not a prefix of those of prompt and "
                f"reply (they differ near {self._divergence(prompt, full)!r}), so training would "
                "use another context than inference; use a chat template that renders the prompt "
                "the same way in both cases"
            )
        ends = [i for i in range(len(prompt), len(full)) if full[i] in self.end_ids]
        if not ends:
            raise ConfigError(
                "the chat template ends a reply with "
                f"{self.tokenizer.decode(full[-3:])!r}, without an end-of-turn token "
                f"({self._end_names()}), so the model would never learn to stop; "
                "correct the template or the model's eos_token"
            )
        return full[len(prompt) : ends[-1] + 1]

    def _render(self, messages: list[dict[str, str]], *, add_generation_prompt: bool = False) -> Ids:
        return self.tokenizer.apply_chat_template(
            messages,
            tokenize=True,
            return_dict=False,
            add_generation_prompt=add_generation_prompt,
            **self.template_args,
        )

    def _divergence(self, prompt: Ids, full: Ids) -> str:
        at = next((i for i, (a, b) in enumerate(zip(prompt, full)) if a != b), len(full))
        return self.tokenizer.decode(prompt[max(0, at - 2) : at + 3])

    def _end_names(self) -> str:
        return ", ".join(self.tokenizer.convert_ids_to_tokens(sorted(self.end_ids))) or "none is set"


def read_rows(path: Path, shape: str) -> tuple[list[dict[str, Any]], int]:
    """Rows with status `ok` (or without a status), and how many others there were.

    Raises:
        DataError: not a Parquet file, a missing column, a row id used twice, or nothing to use.
    """
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"data set '{path}' cannot be read as Parquet ({error}); export it again") from error
    missing = [name for name in NEEDED[shape] if name not in schema.names]
    if missing:
        raise DataError(
            f"data set '{path}' has no column {', '.join(missing)}; it has {', '.join(schema.names)}"
        )
    columns = [name for name in (*NEEDED[shape], "status") if name in schema.names]
    rows = pq.read_table(path, columns=columns).to_pylist()
    kept = [row for row in rows if row.get("status", "ok") == "ok"]
    if not kept:
        raise DataError(
            f"data set '{path}' has {len(rows)} rows and none is usable; "
            "see the drop reasons of its stage before training"
        )
    if len({row["row_id"] for row in kept}) < len(kept):
        raise DataError(f"data set '{path}' uses a row_id twice; ids join labels, so make them unique")
    return kept, len(rows) - len(kept)


def training_columns(
    path: Path, config: TrainingConfig, encoder: ReplyEncoder
) -> tuple[Columns, RowCounts]:
    """Columns of token ids in the shape that the method's trainer takes, and the counts.

    Raises:
        DataError, ConfigError: as `read_rows` and `ReplyEncoder.reply`, or no row is left.
    """
    shape = method_of(config).shape
    rows, not_ok = read_rows(path, shape)
    clear = [row for row in rows if row.get("soft_label", 1.0) >= getattr(config, "min_soft_label", 0)]
    encoded = [_encode(row, shape, encoder) for row in clear]
    fitting = [row for row in encoded if row["length"] <= config.max_length]
    counts = RowCounts(
        read=len(rows) + not_ok,
        not_ok=not_ok,
        unclear=len(rows) - len(clear),
        too_long=len(encoded) - len(fitting),
        used=len(fitting),
    )
    if not fitting:
        raise DataError(
            f"no row of '{path}' is left: {counts.too_long} are longer than max_length "
            f"({config.max_length} tokens), {counts.unclear} below min_soft_label; raise the one "
            "or lower the other"
        )
    if shape == "completion":
        return _completion_columns(fitting), counts
    if shape == "unpaired":
        return unpaired_columns(fitting, config.batch_size, config.seed), counts
    return _pair_columns(fitting, wants_soft_labels(config)), counts


def _encode(row: dict[str, Any], shape: str, encoder: ReplyEncoder) -> dict[str, Any]:
    messages, row_id = row["messages"], row["row_id"]
    prompt = encoder.prompt(messages)
    names = ("completion",) if shape == "completion" else ("chosen", "rejected")
    replies = {name: encoder.reply(messages, prompt, row[name], row_id) for name in names}
    longest = len(prompt) + max(len(ids) for ids in replies.values())
    soft_label = row.get("soft_label", 1.0)
    if not 0.5 <= soft_label <= 1:
        raise DataError(
            f"row {row_id} has soft_label {soft_label}, and P(chosen is better) lies in [0.5, 1]; "
            "swap chosen and rejected, and use 1 - soft_label"
        )
    return {"row_id": row_id, "prompt": prompt, **replies, "length": longest, "soft": soft_label}


def _completion_columns(rows: Iterable[dict[str, Any]]) -> Columns:
    rows = list(rows)
    return {
        "row_id": [row["row_id"] for row in rows],
        "input_ids": [row["prompt"] + row["completion"] for row in rows],
        "labels": [[-100] * len(row["prompt"]) + row["completion"] for row in rows],
        "length": [row["length"] for row in rows],
    }


def _pair_columns(rows: Iterable[dict[str, Any]], soft: bool) -> Columns:
    # Sorted by length, so that computing the reference wastes little on padding; the trainer's
    # sampler shuffles.
    rows = sorted(rows, key=lambda row: (row["length"], row["row_id"]))
    columns = {
        "row_id": [row["row_id"] for row in rows],
        "prompt_ids": [row["prompt"] for row in rows],
        "chosen_ids": [row["chosen"] for row in rows],
        "rejected_ids": [row["rejected"] for row in rows],
        "length": [row["length"] for row in rows],
    }
    if soft:
        columns["p_chosen"] = [row["soft"] for row in rows]
    return columns


def unpaired_columns(rows: Sequence[dict[str, Any]], batch_size: int, seed: int) -> Columns:
    """Each pair as a good and a bad reply, never both in one batch of `batch_size` rows.

    First comes one reply of every pair, good or bad by chance, then the others in the same
    order. `KL_completion_ids` is the reply of the row before, within the batch: TRL estimates
    the divergence on such mismatched replies. A last batch of one row borrows the row before it.
    """
    generator = random.Random(seed)
    pairs = sorted(rows, key=lambda row: row["row_id"])
    generator.shuffle(pairs)
    good_first = [generator.random() < 0.5 for _ in pairs]
    order = [(row, good) for row, good in zip(pairs, good_first)]
    order += [(row, not good) for row, good in zip(pairs, good_first)]
    replies = [row["chosen"] if good else row["rejected"] for row, good in order]
    return {
        "row_id": [f"{row['row_id']}:{'chosen' if good else 'rejected'}" for row, good in order],
        "prompt_ids": [row["prompt"] for row, _ in order],
        "completion_ids": replies,
        "KL_completion_ids": [replies[_neighbor(i, len(replies), batch_size)] for i in range(len(replies))],
        "label": [good for _, good in order],
        "length": [row["length"] for row, _ in order],
    }


def _neighbor(index: int, total: int, batch_size: int) -> int:
    start = index - index % batch_size
    last = min(start + batch_size, total) - 1
    if last == start:
        return index - 1
    return last if index == start else index - 1
