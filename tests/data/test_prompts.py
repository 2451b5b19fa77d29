"""Prompt sets: every complaint names file and line, equal prompts are one, and shards stay."""

import gzip
import json
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.config.paths import PROJECT_ROOT
from pipeline.data import heldout
from pipeline.data.heldout import PromptCounts, check_prompts
from pipeline.data.prompt_lines import parse_line
from pipeline.data.prompts import prompt_rows, read_prompts, write_prompt_shards
from pipeline.errors import DataError
from pipeline.ids import prompt_id, row_id
from pipeline.records import PromptRow, table_from_rows
from pipeline.store import Manifest, read_rows
from pipeline.store.shards import stage_manifests
from pipeline.types import assistant, user

TURNS = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "and?"},
]


def write(path: Path, *lines: object) -> Path:
    """A file with these lines; what is not text is written as JSON."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def write_numbers(path: Path, numbers: range) -> Path:
    return write(path, *({"prompt": f"question {n}"} for n in numbers))


def texts(rows: Iterator[PromptRow]) -> list[str]:
    return [row.messages[-1].content for row in rows]


@pytest.mark.parametrize(
    "path", sorted((PROJECT_ROOT / "prompts" / "sets").glob("*.jsonl")), ids=lambda path: path.stem
)
def test_shipped_set_is_sound(path: Path) -> None:
    counts = check_prompts([path])
    assert counts.train == len([*prompt_rows([path])]) >= 12


def test_both_forms_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl", {"prompt": "hé"}, "", {"messages": TURNS, "tags": ["a", "b"]}
    )
    one, two = read_prompts([path], run_id="r")
    assert one.messages == (user("hé"),) and one.source_index == 1
    assert two.messages == (user("hi"), assistant("hello"), user("and?"))
    assert (two.tags, two.source, two.source_index, two.run_id) == (("a", "b"), str(path), 3, "r")


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"prompt": "x"', "broken JSON .*column 15.*; write one whole object on each line"),
        ("[1]", 'found a JSON list, but an object is needed; write {"prompt": "..."}'),
        ({"promt": "x"}, "'promt' is not a known key; did you mean 'prompt'"),
        ({"prompt": "x", "zzz": 1}, "'zzz' is not a known key; known keys: prompt, messages, tags"),
        ({"prompt": " \n"}, "prompt is empty"),
        ({"prompt": 3}, "prompt has the type int, but text is needed"),
        ({"prompt": "x", "messages": TURNS}, "both 'prompt' and 'messages'"),
        ({"tags": []}, "has no prompt"),
        ({"prompt": "x", "tags": "one"}, "'tags' must be a list of strings"),
        ({"messages": []}, "at least one turn"),
        (
            {"messages": TURNS[:2]},
            "the last turn has the role assistant, but a user turn is needed",
        ),
        ({"messages": TURNS[1:]}, "turn 1 has the role assistant, but user is needed there"),
        ({"messages": [TURNS[0], TURNS[0]]}, "turn 2 has the role user, but assistant is needed"),
        ({"messages": [{"role": "system", "content": "s"}]}, "the last turn has the role system"),
        (
            {"messages": [TURNS[0], {"role": "system", "content": "s"}]},
            "turn 2 has the role system",
        ),
        (
            {"messages": [{"role": "tool", "content": "s"}]},
            "turn 1 has the role 'tool'; use system",
        ),
        ({"messages": [{"role": "user", "content": "s", "name": "x"}]}, "exactly role and content"),
        ({"messages": [{"role": "user", "content": ""}]}, "content of turn 1 is empty"),
        ('{"prompt": "\\ud800"}', "half of a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_bad_line_is_named(tmp_path: Path, line: object, message: str) -> None:
    path = write(tmp_path / "p.jsonl", {"prompt": "fine"}, line)
    with pytest.raises(DataError, match=f"p.jsonl, line 2: .*{message}") as caught:
        check_prompts([path])
    assert "\n" not in str(caught.value)


TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "x"]), "content": st.text(max_size=3)}
)
VALUE = st.text(max_size=3) | st.lists(st.text(max_size=3) | TURN) | st.integers() | st.none()
LINE = st.dictionaries(st.sampled_from(["prompt", "messages", "tags", "x"]), VALUE).map(json.dumps)


@given(line=LINE.map(str.encode) | st.text().map(str.encode) | st.binary())
@example(line=b'{"prompt": ' + b"1" * 5000 + b"}")
@example(line=b'{"prompt": "a", "tags": ["\\ud800"]}')
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_line_is_a_prompt_or_is_named(line: bytes) -> None:
    try:
        messages, tags = parse_line(line, "p.jsonl, line 1")
    except DataError as error:
        assert str(error).startswith("p.jsonl, line 1: ")
    else:
        row = PromptRow(row_id=prompt_id(messages), messages=messages, tags=tags)
        assert messages[-1].role == "user" and table_from_rows([row], PromptRow).num_rows == 1


def test_other_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n{"prompt": "caf\xe9"}\n')
    with pytest.raises(DataError, match="line 2: byte 16 is not UTF-8; save the file as UTF-8"):
        check_prompts([path])


def test_system_turn_may_come_first(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"messages": [{"role": "system", "content": "s"}, *TURNS]})
    assert check_prompts([path]).train == 1


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.jsonl does not exist; check the path"):
        check_prompts([tmp_path / "gone.jsonl"])
    with pytest.raises(DataError, match=r"no prompts in .*empty.jsonl; add at least one line"):
        check_prompts([write(tmp_path / "empty.jsonl", "")])
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"has no file that ends in .jsonl"):
        check_prompts([tmp_path / "folder"])


def test_gzip_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress(b'\xef\xbb\xbf{"prompt": "a"}\n{"prompt": "b"}\n'))
    assert texts(read_prompts([path])) == ["a", "b"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        check_prompts([path])
    write(path, {"prompt": "plain"})
    with pytest.raises(DataError, match="Not a gzipped file"):
        check_prompts([path])


def test_equal_prompts_are_one(tmp_path: Path) -> None:
    one = write(
        tmp_path / "a.jsonl", {"prompt": "x", "tags": ["1"]}, {"prompt": "y"}, {"prompt": "x"}
    )
    two = write(
        tmp_path / "b.jsonl", {"messages": [{"role": "user", "content": "x"}]}, {"prompt": "z"}
    )
    assert texts(read_prompts([one, two])) == ["x", "y", "z"]
    assert check_prompts([one, two]) == PromptCounts(train=3)
    (same,) = {
        row.row_id
        for path in (one, two)
        for row in read_prompts([path])
        if row.messages == (user("x"),)
    }
    assert same == row_id("prompt", [{"role": "user", "content": "x"}])


def test_heldout_prompt_must_not_be_trained_on(tmp_path: Path) -> None:
    train = write(tmp_path / "t.jsonl", {"prompt": "a"}, {"prompt": "b"})
    held = write(tmp_path / "h.jsonl", {"prompt": "c"}, {"prompt": "d"}, {"prompt": "b"})
    with pytest.raises(DataError, match=r"h.jsonl, line 3: .*also trained on .*t.jsonl, line 2"):
        check_prompts([train], [held])
    assert check_prompts([train], [write(held, {"prompt": "c"})]) == PromptCounts(2, 1)


def test_check_keeps_only_ids_of_training_prompts(tmp_path: Path) -> None:
    """24 hex digits are a string of 73 bytes; a set of 5,000 has 2**15 slots of 16: 105 each."""
    train = write_numbers(tmp_path / "t.jsonl", range(5_000))
    held = write(tmp_path / "h.jsonl", {"prompt": "c"})
    check_prompts([train], [held])
    tracemalloc.start()
    check_prompts([train], [held])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # While a set grows, its smaller table is there as well; a place and a key would be 300 more.
    assert peak / 5_000 < 250


@pytest.mark.parametrize("heldout", ["Is the caf\u00e9 open?\n", "\tIs the cafe\u0301 open?"])
def test_white_space_and_unicode_form_hide_no_heldout_prompt(tmp_path: Path, heldout: str) -> None:
    train = write(tmp_path / "t.jsonl", {"prompt": "a"}, {"prompt": "Is the caf\u00e9 open?"})
    held = write(tmp_path / "h.jsonl", {"prompt": heldout})
    with pytest.raises(DataError, match=r"h.jsonl, line 1: .*also trained on .*t.jsonl, line 2"):
        check_prompts([train], [held])
    # Two training prompts that differ so are two: a model sees the difference.
    assert check_prompts([train, held]).train == 3


def test_limit_is_drawn_by_seed(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "p.jsonl", range(200))
    drawn = texts(read_prompts([path], limit=20, seed=1))
    assert len(drawn) == 20 and drawn != texts(read_prompts([path], limit=20, seed=2))
    assert drawn == sorted(drawn, key=lambda text: int(text.split()[1]))
    # A smaller limit is a part of it, and a file in another order gives the same prompts.
    assert set(texts(read_prompts([path], limit=5, seed=1))) < set(drawn)
    lines = path.read_text().splitlines()
    write(path, *reversed(lines))
    assert set(texts(read_prompts([path], limit=20, seed=1))) == set(drawn)
    assert len(list(read_prompts([path], limit=999))) == 200


def test_known_prompts_are_left_out(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "p.jsonl", range(10))
    known = {prompt_id((user(f"question {n}"),)) for n in range(7)}
    assert texts(read_prompts([path], exclude=known)) == ["question 7", "question 8", "question 9"]
    assert len(list(read_prompts([path], exclude=known, limit=2))) == 2


def shards(root: Path, path: Path, size: int = 4, key: str = "k") -> list[Manifest]:
    write_prompt_shards(root / "run", "prompts", read_prompts([path]), size, key)
    return stage_manifests(root / "run", "prompts")


def test_shards_hold_all_prompts_in_order(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "p.jsonl", range(10))
    manifests = shards(tmp_path, path)
    assert [m.counts.ok for m in manifests] == [4, 4, 2]
    found = [row for m in manifests for row in read_rows(tmp_path / "run", m)]
    assert found == list(read_prompts([path]))


def test_run_keeps_the_prompts_it_began_with(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "p.jsonl", range(10))
    first = shards(tmp_path, path)
    path.unlink()
    assert shards(tmp_path, path) == first
    # With another key the files are needed again.
    with pytest.raises(DataError, match="does not exist"):
        shards(tmp_path, path, key="other")


def test_damaged_shard_is_made_again(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "p.jsonl", range(10))
    first = shards(tmp_path, path)
    (tmp_path / "run" / first[1].path).write_bytes(b"damaged")
    assert shards(tmp_path, path) == first
    for numbers in (range(1, 11), range(8), range(12)):
        (tmp_path / "run" / first[1].path).write_bytes(b"damaged")
        write_numbers(path, numbers)
        with pytest.raises(DataError, match=r"prompt files have changed .* start a new run"):
            shards(tmp_path, path)


def test_stopped_attempt_leaves_no_stale_shards(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "p.jsonl", range(30))
    shards(tmp_path, path)
    (tmp_path / "run" / "prompts" / "complete.json").unlink()
    write_numbers(path, range(5))
    assert [m.counts.ok for m in shards(tmp_path, path)] == [4, 1]
    assert len(list((tmp_path / "run" / "prompts").glob("shard-*"))) == 4


def test_set_without_new_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prompts for 'prompts'"):
        write_prompt_shards(tmp_path, "prompts", iter(()), 4, "k")


def test_guards_of_the_page_are_called_where_it_says() -> None:
    rows = re.findall(r"^    (\w+) +(\w+/\w+\.py)", str(heldout.__doc__), re.MULTILINE)
    assert len(rows) == 5
    for guard, path in rows:
        text = (PROJECT_ROOT / "pipeline" / path).read_text(encoding="utf-8")
        assert hasattr(heldout, guard) and f"{guard}(" in text, path
