"""The fingerprint of a model: a hash of all files that determine what it answers.

In:  a model folder, and an adapter and a chat template if the recipe names them
Out: one sha256 over weights, configuration, tokenizer, chat template and number format

Paths and times are not part of it, so a copied model keeps its fingerprint. The hash of a big
file is remembered by path, size and time of change for as long as the process lives.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline.ids import file_hash as hash_bytes

TOKENIZER_FILES = (
    "tokenizer*.json",
    "tokenizer*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "chat_template*",
    "additional_chat_templates/*",
)
"""Tokenizer and chat templates, which a training hands on unchanged."""
PATTERNS = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    *TOKENIZER_FILES,
)
"""Files that count; cards, logs and optimizer states do not."""


def model_fingerprint(
    folder: Path,
    *,
    dtype: str,
    adapter: Path | None = None,
    chat_template: Path | None = None,
    chat_template_args: dict[str, Any] | None = None,
) -> str:
    """Hash (hexadecimal sha256) of everything that determines the answers of a model."""
    parts = {
        "model": file_hashes(folder, PATTERNS),
        "adapter": file_hashes(adapter, ("adapter_*",)) if adapter else {},
        "chat_template": file_hash(chat_template) if chat_template else "",
        "chat_template_args": chat_template_args or {},
        "dtype": dtype,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """sha256 (hexadecimal) of a file's content."""
    state = path.stat()
    return _hash(str(path.resolve()), state.st_size, state.st_mtime_ns)


def file_hashes(folder: Path, patterns: tuple[str, ...] = ("**/*",)) -> dict[str, str]:
    """sha256 of each file of a folder that matches a pattern, by path below the folder."""
    files = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in sorted(files)}


@functools.lru_cache(maxsize=1024)
def _hash(path: str, size: int, mtime_ns: int) -> str:
    return hash_bytes(Path(path))
