"""Data set -> token ids: what the model will really see, checked row by row before training.

In:  the job's Parquet files and the model's tokenizer
Out: columns of token ids for a trainer, and what became of every row

Each row must satisfy three things, or training would be wrong without a sign:
the tokens of the prompt are a prefix of those of prompt and reply (else the model learns another
context than it meets at inference); the reply ends with an end-of-turn token (else it never
learns to stop); it fits `max_length` (else the end is what gets cut). The first two are errors,
the third leaves the row out and counts it. What a template prints after the end-of-turn token is
dropped: no engine ever generates it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.training import DpoConfig, OnlineSection, TrainingSection, TurnsConfig
from pipeline.engines.literal import Spellings, encode_marked, mark_spelled, spelled_tokens
from pipeline.engines.reply import with_thought
from pipeline.errors import ConfigError, DataError
from pipeline.ids import content_hash, uniform
from pipeline.training.job import RowCounts
from pipeline.training.worker.best_of import best_replies
from pipeline.training.worker.heldout import KEY
from pipeline.training.worker.kto_rows import (
    Columns,
    Ids,
    Reply,
    reply_key,
    resolve_contradictions,
    unpaired_columns,
)
from pipeline.training.worker.methods import method_of
from pipeline.training.worker.turns import encode_turns

NEEDED = {
    "completion": ("row_id", "messages", "completion"),
    "best": ("row_id", "messages", "chosen", "rejected", "soft_label"),
    "pairs": ("row_id", "messages", "chosen", "rejected", "soft_label"),
    "unpaired": ("row_id", "messages", "chosen", "rejected", "soft_label"),
    "conversations": ("row_id", "messages", "chosen", "rejected", "soft_label"),
    "prompts": ("row_id", "messages"),
    "feedback": ("row_id", "messages", "completion", "label", "weight"),
}
"""Columns of a data set, by shape; `feedback` is the second file of an `unpaired` job."""

_THOUGHT = re.compile(r"\A<think>\n(.+?)\n</think>\n\n(?=.)", re.S)
"""Of a completion that `supervised.sft_thoughts` made; no other reply begins so."""


@dataclass(frozen=True)
class ReplyEncoder:
    """Turns a conversation and a reply into token ids, the way the engine will."""

    tokenizer: Any
    """A transformers tokenizer with a chat template."""
    end_ids: frozenset[int]
    """Tokens that end a turn at inference."""
    template_args: dict[str, Any]

    @cached_property
    def _spelled(self) -> Spellings | None:
        return spelled_tokens(self.tokenizer)

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
        if (thought := _THOUGHT.match(text)) and not self._says(full[len(prompt) :], thought[1]):
            raise DataError(
                f"row {row_id} has a thought, which the chat template leaves out; use a template "
                "that keeps it, or `supervised.sft_thoughts: false`"
            )
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

    def conversation(self, messages: Sequence[dict[str, str]], text: str, row_id: str) -> Ids:
        """Ids of the conversation and the whole reply, as a reward model reads them.

        Raises:
            DataError: the reply is empty.
        """
        if not text:
            raise DataError(f"row {row_id} has an empty reply; drop such rows before training")
        return self._render([*messages, {"role": "assistant", "content": text}])

    def _render(
        self, messages: list[dict[str, str]], *, add_generation_prompt: bool = False
    ) -> Ids:
        marked = [{**message, "content": self._marked(message)} for message in messages]
        is_plain = marked == messages
        rendered = self.tokenizer.apply_chat_template(
            marked,
            tokenize=is_plain,
            return_dict=False,
            add_generation_prompt=add_generation_prompt,
            **self.template_args,
        )
        if is_plain:
            return list(rendered)
        return encode_marked(
            rendered, lambda text: list(self.tokenizer(text, add_special_tokens=False).input_ids)
        )

    def _marked(self, message: dict[str, str]) -> str:
        """The text with its spelled tokens marked; those around a thought to learn stay live."""
        text = message["content"]
        thought = _THOUGHT.match(text) if message["role"] == "assistant" else None
        if thought is None:
            return mark_spelled(text, self._spelled)
        inside = mark_spelled(thought[1], self._spelled)
        return with_thought(inside, mark_spelled(text[thought.end() :], self._spelled))

    def _says(self, ids: Ids, text: str) -> bool:
        """Whether a text is in what the ids say, white space apart."""
        decoded = self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return "".join(text.split()) in "".join(decoded.split())

    def _divergence(self, prompt: Ids, full: Ids) -> str:
        pairs = enumerate(zip(prompt, full, strict=False))
        at = next((i for i, (a, b) in pairs if a != b), len(full))
        return str(self.tokenizer.decode(prompt[max(0, at - 2) : at + 3]))

    def _end_names(self) -> str:
        return (
            ", ".join(self.tokenizer.convert_ids_to_tokens(sorted(self.end_ids))) or "none is set"
        )


def read_rows(path: Path, shape: str) -> tuple[list[dict[str, Any]], int]:
    """Rows with status `ok` (or without a status), and how many others there were.

    Raises:
        DataError: not a Parquet file, a missing column, a row id used twice, or a row without
            messages or with a label or weight that is none.
    """
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"data set '{path}' cannot be read as Parquet ({error}); export it again"
        ) from error
    missing = [name for name in NEEDED[shape] if name not in schema.names]
    if missing:
        raise DataError(
            f"data set '{path}' has no column {', '.join(missing)}; "
            f"it has {', '.join(schema.names)}"
        )
    columns = [name for name in (*NEEDED[shape], "status") if name in schema.names]
    rows = pq.read_table(path, columns=columns).to_pylist()
    usable = [row for row in rows if row.get("status", "ok") == "ok"]
    if len({row["row_id"] for row in usable}) < len(usable):
        raise DataError(
            f"data set '{path}' uses a row_id twice; ids join labels, so make them unique"
        )
    for row in usable:
        if problem := _problem(row):
            raise DataError(f"row {row['row_id']} of '{path}' has {problem}")
    return usable, len(rows) - len(usable)


def _problem(row: dict[str, Any]) -> str:
    """Why nothing can be learned from a row that is `ok`; empty for a good one."""
    if not row["messages"]:
        return "no messages; leave it out"
    if not all(row[name] for name in ("completion", "chosen", "rejected") if name in row):
        return "an empty reply; drop such rows before training"
    soft_label, weight = row.get("soft_label", 1.0), row.get("weight", 1.0)
    if not _is_share(soft_label) or soft_label < 0.5:
        return (
            f"soft_label {soft_label}, and P(chosen preferred) lies in [0.5, 1]; swap chosen and "
            "rejected, and use 1 - soft_label"
        )
    if not isinstance(row.get("label", True), bool):
        return f"label {row['label']}, which is neither true nor false; leave it out"
    if not _is_share(weight):
        return f"weight {weight}, and a weight lies in [0, 1]; correct it"
    return ""


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def training_columns(
    path: Path, config: TrainingSection, encoder: ReplyEncoder, feedback: Path | None = None
) -> tuple[Columns, RowCounts]:
    """Columns of token ids in the shape that the method's trainer takes, and the counts.

    Args:
        feedback: replies that users judged, for KTO.

    Raises:
        DataError, ConfigError: as `read_rows` and `ReplyEncoder.reply`, no row is left, or KTO has
            one side only.
    """
    method = method_of(config)
    rows, not_ok = read_rows(path, method.shape)
    judged, not_ok_judged = read_rows(feedback, "feedback") if feedback else ([], 0)
    if not rows and not judged:
        files = " and ".join(f"'{file}'" for file in filter(None, (path, feedback)))
        raise DataError(
            f"data set {files}: of {not_ok + not_ok_judged} rows none is usable; see in the "
            "manifest beside it why rows were left out"
        )
    smallest_label, smallest_weight = method.smallest(config)
    num_read = len(rows)
    rows = _drawn(rows, config)
    if isinstance(config, OnlineSection):
        counts = RowCounts(read=num_read + not_ok, not_ok=not_ok, undrawn=num_read - len(rows))
        return _prompt_columns(path, rows, config, encoder, counts)
    confident_pairs = [row for row in rows if row.get("soft_label", 1.0) >= smallest_label]
    weighted_feedback = [row for row in judged if row["weight"] >= smallest_weight]
    learned = [*confident_pairs, *weighted_feedback]
    if method.shape == "best":
        learned = best_replies(confident_pairs)
    turns = config.turns if isinstance(config, DpoConfig) else None
    encoded = [_encode(row, encoder, turns, whole=method.scores) for row in learned]
    fitting = [row for row in encoded if row["length"] <= config.max_length]
    counts = RowCounts(
        read=num_read + not_ok + len(judged) + not_ok_judged,
        not_ok=not_ok + not_ok_judged,
        undrawn=num_read - len(rows),
        unclear=len(rows) - len(confident_pairs),
        weak=len(judged) - len(weighted_feedback),
        beaten=len(confident_pairs) + len(weighted_feedback) - len(learned),
        too_long=len(encoded) - len(fitting),
        used=len(fitting),
        feedback=sum("label" in row for row in fitting),
    )
    if not fitting:
        raise DataError(
            f"no row of '{path}' is left: {counts.too_long} are longer than max_length "
            f"({config.max_length} tokens), {counts.unclear} below min_soft_label, {counts.weak} "
            "below min_weight; raise the first or lower the others"
        )
    if method.shape in ("completion", "best"):
        return _completion_columns(fitting), counts
    if method.shape in ("pairs", "conversations"):
        return _pair_columns(fitting, method.soft_labels(config), whole=method.scores), counts
    replies, reply_counts = resolve_contradictions(
        [reply for row in fitting for reply in _replies(row)]
    )
    columns = unpaired_columns(replies, config.batch_size, config.seed)
    return columns, counts.model_copy(update={"replies": reply_counts})


def _drawn(rows: list[dict[str, Any]], config: TrainingSection) -> list[dict[str, Any]]:
    """`max_rows` of the rows, in their order; nested in the number, whatever the order is."""
    if config.max_rows is None:
        return rows
    by_chance = sorted(rows, key=lambda row: uniform("max_rows", config.seed, row["row_id"]))
    drawn = {row["row_id"] for row in by_chance[: config.max_rows]}
    return [row for row in rows if row["row_id"] in drawn]


def _encode(
    row: dict[str, Any],
    encoder: ReplyEncoder,
    turns: TurnsConfig | None = None,
    *,
    whole: bool = False,
) -> dict[str, Any]:
    """The row with token ids under `ids`, by the name of the reply, and its length in tokens; with
    `turns` also the weights of these tokens.

    Args:
        whole: the ids of a reply are those of the whole conversation, and there is no prompt.
    """
    messages, row_id = row["messages"], row["row_id"]
    names = ("completion",) if "completion" in row else ("chosen", "rejected")
    prompt: Ids = []
    weights: dict[str, list[float]] = {}
    if not turns and (lists := [name for name in names if not isinstance(row[name], str)]):
        raise DataError(
            f"row {row_id}: `{lists[0]}` is a list of turns, which method dpo learns with `turns`; "
            "add it, or use pairs of single replies"
        )
    if turns:
        prompt, ids = encoder.prompt(messages), {}
        for name in names:
            reply = row[name]
            said = [{"role": "assistant", "content": reply}] if isinstance(reply, str) else reply
            ids[name], weights[name] = encode_turns(encoder, messages, said, row_id, turns)
    elif whole:
        ids = {name: encoder.conversation(messages, row[name], row_id) for name in names}
    else:
        prompt = encoder.prompt(messages)
        ids = {name: encoder.reply(messages, prompt, row[name], row_id) for name in names}
    return {
        **row,
        "prompt": prompt,
        "ids": ids,
        "weights": weights,
        "length": len(prompt) + max(map(len, ids.values())),
    }


def _replies(row: dict[str, Any]) -> Iterable[Reply]:
    """A pair is a good and a bad reply; a row of feedback is one reply with its own label."""
    for name, ids in row["ids"].items():
        key = reply_key(row["messages"], row[name])
        if "label" in row:
            yield Reply(row["row_id"], key, row["prompt"], ids, row["label"])
        else:
            yield Reply(f"{row['row_id']}:{name}", key, row["prompt"], ids, name == "chosen")


def _prompt_columns(
    path: Path,
    rows: Sequence[dict[str, Any]],
    config: OnlineSection,
    encoder: ReplyEncoder,
    counts: RowCounts,
) -> tuple[Columns, RowCounts]:
    """Each prompt once, if a reply of `max_tokens` fits behind it."""
    once = {content_hash(row["messages"]): row for row in reversed(rows)}
    prompts = [(row, encoder.prompt(row["messages"])) for row in reversed(once.values())]
    longest = config.max_length - config.max_tokens
    fitting = [(row, ids) for row, ids in prompts if len(ids) <= longest]
    if not fitting:
        raise DataError(
            f"no prompt of '{path}' leaves room for a reply of max_tokens ({config.max_tokens}) "
            f"within max_length ({config.max_length} tokens); raise the second, or lower the first"
        )
    columns = {
        "row_id": [row["row_id"] for row, _ in fitting],
        "prompt_ids": [ids for _, ids in fitting],
        "messages": [row["messages"] for row, _ in fitting],
    }
    changes = {
        "repeated": len(rows) - len(prompts),
        "too_long": len(prompts) - len(fitting),
        "used": len(fitting),
    }
    return columns, counts.model_copy(update=changes)


def _completion_columns(rows: Sequence[dict[str, Any]]) -> Columns:
    return {
        "row_id": [row["row_id"] for row in rows],
        "input_ids": [row["prompt"] + row["ids"]["completion"] for row in rows],
        "labels": [[-100] * len(row["prompt"]) + row["ids"]["completion"] for row in rows],
        "length": [row["length"] for row in rows],
    }


def _pair_columns(
    rows: Iterable[dict[str, Any]], soft_labels: bool, *, whole: bool = False
) -> Columns:
    # Sorted by length, so that computing the reference wastes little on padding; the trainer's
    # sampler shuffles.
    rows = sorted(rows, key=lambda row: (row["length"], row["row_id"]))
    columns = {
        "row_id": [row["row_id"] for row in rows],
        "prompt_ids": [row["prompt"] for row in rows],
        "chosen_ids": [row["ids"]["chosen"] for row in rows],
        "rejected_ids": [row["ids"]["rejected"] for row in rows],
        "length": [row["length"] for row in rows],
    }
    if rows and rows[0]["weights"]:
        for side in ("chosen", "rejected"):
            columns[f"{side}_weights"] = [row["weights"][side] for row in rows]
    if soft_labels:
        columns["soft_label"] = [row["soft_label"] for row in rows]
    if whole:
        del columns["prompt_ids"]
        columns[KEY] = [content_hash(row["messages"]) for row in rows]
    return columns
