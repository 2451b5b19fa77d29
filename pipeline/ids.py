"""Content hashes, row ids and seeds: equal inputs give equal ids, on any machine, in any order.

A `row_id` is a hash of everything that determined the row, so that a resumed or repeated run
yields the same ids and joins never depend on position. Seeds come from row ids for the same
reason: a resumed shard starts at another loop index.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.types import Messages

_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)

_LINE_BREAK = re.compile("\r\n?|[\x85\u2028\u2029]")
_SPACE = re.compile("[\xa0\u2000-\u200a\u202f\u205f]")
_UNSEEN = re.compile("[\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""Zero-width characters and marks of direction; not joiners, which change what is seen."""

ID_LENGTH = 24
"""Hex digits of a row id: 96 bits, no collision in practice below 10**13 rows."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces. Raises TypeError for a value that JSON cannot hold."""
    return _ENCODER.encode(value)


def content_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def text_hash(*texts: str) -> str:
    """Short hash of texts that went into a row: detects a parent that was sampled again."""
    return content_hash(list(texts))[:16]


def input_hash(messages: Messages, *texts: str) -> str:
    """Hash of a conversation and of further texts that went into a row, 16 hex digits."""
    return text_hash(*(part for m in messages for part in (m.role, m.content)), *texts)


def row_id(kind: str, *determinants: Any) -> str:
    """Id of a row of `kind` determined by JSON-able values, 24 hex digits."""
    return content_hash([kind, *determinants])[:ID_LENGTH]


def plain_text(text: str) -> str:
    """The text as a reader sees it: without surrounding white space and characters that show
    nothing, in Unicode's composed form (NFC), with one kind of line break and of space.

    For comparisons only.
    """
    text = _LINE_BREAK.sub("\n", text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", _SPACE.sub(" ", _UNSEEN.sub("", text)))
    return text.strip()


def conversation_key(messages: Messages) -> str:
    """Hash of a conversation as a reader sees it: equal where `plain_text` of every turn is equal.

    For finding held-out prompts and shared items, where a trailing line break must not hide one.
    Not a row id: those differ for such conversations, because a model sees the difference.
    """
    return row_id(
        "prompt",
        [{"role": message.role, "content": plain_text(message.content)} for message in messages],
    )


def prompt_id(messages: Messages) -> str:
    """Row id of a prompt, determined by its messages alone: equal in every file and source."""
    return row_id("prompt", [message.as_dict() for message in messages])


def derive_seed(*parts: Any) -> int:
    """A seed in [0, 2**31) from a row id and a purpose."""
    return int(content_hash(list(parts))[:8], 16) & 0x7FFFFFFF


def uniform(*parts: Any) -> float:
    """A reproducible number in [0, 1) from a row id and a purpose (53 random bits)."""
    return (int(content_hash(list(parts))[:16], 16) >> 11) / 2**53


def uniforms(names: Sequence[str], *parts: Any) -> list[float]:
    """One reproducible number in [0, 1) for each name: the parts are hashed once for all names."""
    common = content_hash(list(parts)).encode()
    digests = (
        hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=common[:64], digest_size=8)
        for name in names
    )
    return [(int.from_bytes(digest.digest(), "big") >> 11) / 2**53 for digest in digests]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
