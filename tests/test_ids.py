"""Ids and seeds: the same everywhere, for ever."""

import hashlib
from pathlib import Path

import pytest

from pipeline.ids import (
    ID_LENGTH,
    canonical_json,
    content_hash,
    conversation_key,
    derive_seed,
    file_hash,
    plain_text,
    row_id,
    text_hash,
    uniform,
)
from pipeline.types import Message, user


def test_id_is_hash_of_json() -> None:
    """Spelled out once, so that no change of code changes the ids of old runs."""
    expected = hashlib.sha256(b'["prompt",[{"content":"Hi","role":"user"}]]').hexdigest()[:24]
    assert row_id("prompt", [{"role": "user", "content": "Hi"}]) == expected
    assert len(expected) == ID_LENGTH


def test_key_order_does_not_count() -> None:
    assert content_hash({"a": 1, "b": [2.5, None]}) == content_hash({"b": [2.5, None], "a": 1})


def test_every_determinant_counts() -> None:
    ids = {
        row_id("a", "x", 1),
        row_id("b", "x", 1),
        row_id("a", "y", 1),
        row_id("a", "x", 2),
        row_id("a", "x", "1"),
        row_id("a", ["x", 1]),
        row_id("a", "x"),
        row_id("a", "x1"),
    }
    assert len(ids) == 8


def test_texts_do_not_run_together() -> None:
    assert text_hash("ab", "c") != text_hash("a", "bc")
    assert len(text_hash("a")) == 16


def test_canonical_json_keeps_letters() -> None:
    assert canonical_json({"ü": "日"}) == '{"ü":"日"}'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_without_json_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        content_hash([value])


def test_values_without_json_are_refused() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        content_hash({1, 2})


def test_half_surrogate_has_a_hash() -> None:
    assert content_hash("\ud800") != content_hash("\ud801")


def test_seeds_fit_every_engine() -> None:
    seeds = [derive_seed("sample", row_id("r", number)) for number in range(2000)]
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert len(set(seeds)) == 2000
    # The mean of 2,000 uniform draws is within 4 standard errors (0.2887 / 44.7) of one half.
    assert abs(sum(seeds) / 2000 / 2**31 - 0.5) < 4 * 0.2887 / 44.7


def test_uniform_lies_below_one() -> None:
    draws = [uniform("x", number) for number in range(2000)]
    assert all(0 <= draw < 1 for draw in draws)
    assert abs(sum(draws) / 2000 - 0.5) < 4 * 0.2887 / 44.7


def test_file_hash_reads_all_pieces(tmp_path: Path) -> None:
    path = tmp_path / "large"
    data = b"x" * (1 << 20) + b"end"
    path.write_bytes(data)
    assert file_hash(path) == hashlib.sha256(data).hexdigest()


def test_conversations_alike_to_a_reader_have_one_key() -> None:
    """The key of a clean conversation is its row id; roles and inner white space count."""
    clean = (Message("system", "s"), user("caf\u00e9"))
    assert conversation_key(clean) == row_id("prompt", [message.as_dict() for message in clean])
    assert conversation_key((Message("system", " s"), user("cafe\u0301\n"))) == conversation_key(
        clean
    )
    assert conversation_key((user("s"), user("caf\u00e9"))) != conversation_key(clean)
    assert plain_text(" a  b ") == "a  b"
    assert plain_text("a\r\nb\xa0c\u200b") == plain_text("a\u2028b c") == "a\nb c"
    # A joiner makes one family of three people.
    assert plain_text("\U0001f468\u200d\U0001f467") != plain_text("\U0001f468\U0001f467")
