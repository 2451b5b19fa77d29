"""The pairs on the page: right probabilities, right chains, a fair and fixed sample."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.pairs import MAX_TEXT, both_orders, cut, packed, sample_pairs, within
from tests.evaluation.builders import critique, judgment, make_run, pair, prompt, response, revision
from tests.report.synthetic import add_preference, add_revisions
from tests.run.builders import write_rows

TEXTS = {"a": "help", "b": "harm", "c": "fine"}


def by_id(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in entries}


def unpacked(text: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(text)))


@pytest.mark.parametrize(("chosen", "orders"), [("first", [0.9, 0.7]), ("second", [0.3, 0.1])])
def test_orders_are_mapped_to_the_chosen(chosen: str, orders: list[float]) -> None:
    """Forward 0.9: first wins in slot A with 0.9, second in slot B with 0.1; swapped 0.3: second
    wins in slot A with 0.3, first in slot B with 0.7.
    """
    row = {"first_id": "first", "second_id": "second", "prob_forward": 0.9, "prob_swapped": 0.3}
    assert both_orders(row, chosen) == pytest.approx(orders)


def test_pair_names_chosen_and_rejected(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_preference(run, TEXTS)
    entries = by_id(sample_pairs(run))
    kept = entries["pair-j1"]
    assert (kept["texts"], kept["ids"], kept["agree"]) == (["help", "harm"], ["a", "b"], True)
    assert kept["prompt"] == [{"role": "user", "content": "do evil"}]
    assert kept["orders"] == pytest.approx([0.8, 0.8])
    assert entries["pair-j2"]["reason"] == "tie"


def test_pair_without_label_chooses_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_preference(run, TEXTS)
    entry = by_id(sample_pairs(run))["pair-j3"]
    assert (entry["labeled"], entry["label"], entry["orders"]) == (False, None, None)
    assert entry["texts"] == ["help", "fine"]


def test_prompt_shows_its_revision_chain(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_preference(run, TEXTS)
    add_revisions(run, "harm", "it is harmful", "help")
    (chain,) = sample_pairs(run)[0]["chains"]
    assert (chain["of"], chain["initial"]) == ("", "harm")
    assert chain["steps"] == [
        {
            "round": 1,
            "principle": "harm",
            "critique": "it is harmful",
            "revision": "help",
            "status": "ok",
        }
    ]


def test_compared_revision_shows_its_own_chain(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    prompts = write_rows(run, "prompts", [prompt("p", "do evil")])
    starts = [response("s0", "p", "harm"), response("s1", "p", "no")]
    critiques = [critique(f"c{i}", "p", f"s{i}", f"critique {i}", "harm") for i in range(2)]
    better = [revision(f"r{i}", row, f"better {i}") for i, row in enumerate(critiques)]
    samples = write_rows(run, "supervised/sample", starts)
    write_rows(run, "supervised/critique-1", critiques)
    revised = write_rows(run, "supervised/revise-1", better)
    label = judgment("j", "p", "r1", "s1", comparison="revision_vs_initial")
    judge = write_rows(run, "preference/judge", [label], inputs=[prompts, samples, revised])
    preference = pair("q", label, {"r1": "better 1", "s1": "no"})
    write_rows(run, "preference/pair", [preference], inputs=[prompts, samples, revised, judge])
    (entry,) = sample_pairs(run)
    (chain,) = entry["chains"]
    assert (chain["of"], chain["steps"][0]["critique"]) == ("chosen/rejected", "critique 1")


def test_sample_is_capped_and_repeats(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for shard in range(3):
        names = [f"{shard}-{i}" for i in range(10)]
        labels = [judgment(f"j{n}", "p", "a", "b") for n in names]
        write_rows(
            run,
            "preference/pair",
            [pair(n, j, TEXTS) for n, j in zip(names, labels, strict=True)],
            shard_index=shard,
        )
    first, again, other = (
        [e["id"] for e in sample_pairs(run, seed=seed, limit=12)] for seed in (0, 0, 1)
    )
    assert first == again != other
    assert len(set(first)) == 12
    assert set(first[:6]) <= {e["id"] for e in sample_pairs(run, limit=20)}


def test_packed_pairs_name_each_text_once(tmp_path: Path) -> None:
    """Three pairs of one prompt and three responses: four texts, to which the numbers lead back."""
    run = make_run(tmp_path / "run")
    add_preference(run, TEXTS)
    add_revisions(run, "harm", "it is harmful", "help")
    entries = sample_pairs(run)
    index, chunks = packed(entries, {"harm": "ask"})
    listed, (content,) = unpacked(index), map(unpacked, chunks)
    texts = content["texts"]
    assert sorted(texts) == ["do evil", "fine", "harm", "help", "it is harmful"]
    assert listed["requests"] == {"harm": "ask"}
    for entry, row in zip(entries, listed["pairs"], strict=True):
        chunk, place = row["at"]
        assert (row["id"], row["head"], chunk) == (entry["id"], "do evil", 0)
        stored = content["pairs"][place]
        assert [texts[i] for i in stored["texts"]] == entry["texts"]
        assert [[role, texts[i]] for role, i in stored["prompt"]] == [["user", "do evil"]]
        (step,) = stored["chains"][0]["steps"]
        assert (texts[step["critique"]], texts[step["revision"]]) == ("it is harmful", "help")


def test_long_text_is_cut_and_counted() -> None:
    assert cut("x" * MAX_TEXT) == "x" * MAX_TEXT
    assert cut("x" * (MAX_TEXT + 1500)).endswith(" … [1,500 more characters]")
    assert cut(None) == ""


def test_long_texts_leave_room_for_fewer_pairs(tmp_path: Path) -> None:
    """Each of the three pairs has a prompt of 7 characters and two texts of 4: 15 each."""
    run = make_run(tmp_path / "run")
    add_preference(run, {"a": "help", "b": "harm", "c": "fine"})
    entries = sample_pairs(run)
    assert [len(within(entries, most)) for most in (14, 29, 30, 44, 45)] == [1, 1, 2, 2, 3]
    assert within([], 10) == []


def test_run_without_pairs_shows_none(tmp_path: Path) -> None:
    assert sample_pairs(make_run(tmp_path / "run")) == []
