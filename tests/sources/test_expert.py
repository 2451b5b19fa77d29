"""Expert answers paired with model responses."""

from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.sources.config import ExpertSource
from pipeline.sources.expert import NO_RESPONSE, import_expert
from tests.sources.builders import write_lines


def test_answer_is_preferred_to_the_response(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl",
        {"prompt": "Hi", "answer": "best", "response": "poor", "author": "ann"},
    )
    (row,) = import_expert(ExpertSource(name="desk", path=path, label_accuracy=0.9)).rows
    assert (row.chosen, row.rejected, row.annotator) == ("best", "poor", "ann")
    assert (row.source_kind, row.soft_label) == ("expert", 0.9)


def test_responses_come_from_a_second_file(tmp_path: Path) -> None:
    answers = write_lines(
        tmp_path / "a.jsonl",
        {"prompt": "Hi", "answer": "best"},
        {"prompt": "Ho", "answer": "x"},
        {"prompt": "Hu", "answer": "same"},
    )
    responses = write_lines(
        tmp_path / "r.jsonl",
        {"prompt": "Hu", "response": "same"},
        *[{"messages": [{"role": "user", "content": "Hi"}], "response": t} for t in "abca"],
    )
    source = ExpertSource(name="desk", path=answers, responses=responses, per_prompt=2)
    imported = import_expert(source)
    pairs = [(r.chosen, r.rejected) for r in imported.usable]
    assert len(pairs) == 2 and {p[0] for p in pairs} == {"best"}
    assert len({p[1] for p in pairs}) == 2
    assert imported.record.reasons == {"identical responses": 1, NO_RESPONSE: 1}


def test_draw_depends_on_the_seed_only(tmp_path: Path) -> None:
    answers = write_lines(tmp_path / "a.jsonl", {"prompt": "Hi", "answer": "best"})
    texts = [{"prompt": "Hi", "response": f"r{i}"} for i in range(20)]
    drawn = []
    for seed, lines in ((0, texts), (0, texts[::-1]), (1, texts)):
        responses = write_lines(tmp_path / "r.jsonl", *lines)
        source = ExpertSource(name="desk", path=answers, responses=responses)
        drawn.append(import_expert(source, seed=seed).rows[0].rejected)
    assert drawn[0] == drawn[1] != drawn[2]


def test_answer_without_response_stops(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "Hi", "answer": "best"})
    with pytest.raises(DataError, match="line 1: there is no 'response'"):
        import_expert(ExpertSource(name="desk", path=path))


def test_answer_that_is_more_than_text_is_dropped(tmp_path: Path) -> None:
    good = {"prompt": "Hi", "answer": "Hello.", "response": "Yo."}
    path = write_lines(
        tmp_path / "a.jsonl",
        good,
        {**good, "answer": None},
        {**good, "response": [{"role": "assistant", "content": "", "tool_calls": [1]}]},
        {**good, "prompt": "['Hi' 'Ho']"},
    )
    record = import_expert(ExpertSource(name="desk", path=path)).record
    assert record.reasons == {
        "JSON or Python stored as text": 1,
        "a tool call": 1,
        "no answer (null)": 1,
    }
