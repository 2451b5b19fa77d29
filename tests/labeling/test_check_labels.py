"""Labels of principles with a check: exact, without a call, beside judged ones."""

from pathlib import Path
from typing import Any

from pipeline.constitution import Constitution, Principle
from pipeline.engines import ScriptedEngine
from pipeline.labeling.score import certain_rating
from pipeline.records import JudgmentRow, PreferenceRow
from pipeline.soft_labels import expected_rating
from pipeline.types import Messages
from tests.stages.builders import ShardState, labels, make_engine, rows, run_chain, sample

AT_MOST_3 = {"name": "words", "max": 3}


def principle(name: str, check: dict[str, Any] | None, weight: float = 1.0) -> Principle:
    text = f"about {name}"
    values = {f"{kind}_request": text for kind in ("critique", "revision", "comparison")}
    return Principle.model_validate({"id": name, "weight": weight, "check": check, **values})


def lengths(messages: Messages, seed: int) -> str:
    """2, 3, 4 or 5 words."""
    return " ".join(["word"] * (2 + seed % 4)) + f"-{seed}"


async def label(
    root: Path, engine: ScriptedEngine, *principles: Principle, prompts: int = 24
) -> tuple[list[JudgmentRow], list[PreferenceRow], dict[str, int], list[ShardState]]:
    constitution = Constitution(name="t", principles=principles)
    stages = [sample(engine), *labels(engine, constitution=constitution)]
    states = await run_chain(root, stages, prompts)
    texts = {r.row_id: len(r.response.split()) for r in rows(root, states, "preference/sample")}
    judged, pairs = (rows(root, states, f"preference/{kind}") for kind in ("judge", "pair"))
    return judged, pairs, texts, states


async def test_labels_follow_the_distances(tmp_path: Path) -> None:
    """At most 3 words: 4 words are 1 too long and 5 words 2, so 5 against 4 is 1/3."""
    engine = make_engine(reply=lengths)
    judged, pairs, num_words, _ = await label(tmp_path, engine, principle("short", AT_MOST_3))
    seen = set()
    for row, pair in zip(judged, pairs, strict=True):
        over = [max(0, num_words[side] - 3) for side in (row.first_id, row.second_id)]
        assert row.prob_first == (over[1] / sum(over) if sum(over) else 0.5)
        assert (row.method, row.model_fingerprint, row.prob_forward) == ("check", "", None)
        assert [bool(reason) for reason in row.rationales] == [n > 0 for n in over]
        assert pair.status == ("dropped" if over[0] == over[1] else "ok")
        if pair.status == "ok":
            assert num_words[pair.chosen_id] < num_words[pair.rejected_id]
        seen.add(tuple(sorted(over)))
    assert {(0, 0), (0, 1), (1, 2)} <= seen
    assert not [call for call in engine.calls if call.kind == "score"]


async def test_only_judged_principles_are_asked(tmp_path: Path) -> None:
    engine = make_engine(reply=lengths)
    judged, _, _, _ = await label(
        tmp_path, engine, principle("short", AT_MOST_3), principle("kind", None)
    )
    methods = {(row.principle_id, row.method) for row in judged}
    assert methods == {("short", "check"), ("kind", "judge")}
    asked = {call.request_id.split(":")[0] for call in engine.calls if call.kind == "score"}
    assert asked == {row.row_id for row in judged if row.method == "judge"}


async def test_changed_check_relabels_its_own_rows_alone(tmp_path: Path) -> None:
    """Judged rows and their ids stay, and no judge is asked again."""
    engine, kind = make_engine(reply=lengths), principle("kind", None)
    before, _, _, _ = await label(tmp_path, engine, principle("short", AT_MOST_3), kind)
    calls = len(engine.calls)
    looser = principle("short", {"name": "words", "max": 4})
    after, _, _, _ = await label(tmp_path, engine, looser, kind)
    assert len(engine.calls) == calls
    for old, new in zip(before, after, strict=True):
        assert old.principle_id == new.principle_id
        assert (old.row_id == new.row_id) == (old.principle_id == "kind")


async def test_check_that_raises_fails_its_row(tmp_path: Path) -> None:
    broken = {"name": "function", "factory": "tests.checks.own_checks:raises"}
    judged, pairs, _, _ = await label(
        tmp_path,
        make_engine(reply=lengths),
        principle("odd", broken, 0.1),
        principle("kind", None),
        prompts=40,
    )
    failed = [row for row in judged if row.status == "failed"]
    assert {row.principle_id for row in failed} == {"odd"}
    assert {row.reason for row in failed} == {"the check 'function' raised KeyError: 'no table'"}
    dropped = {pair.judgment_id: pair.reason for pair in pairs if pair.status == "dropped"}
    assert all(dropped[row.row_id] == "judgment failed" for row in failed)


def test_hash_covers_the_check_and_nothing_else_changed() -> None:
    """The hash without a check is that of versions before checks."""
    plain = principle("kind", None)
    assert plain.hash == "3370915e585c7d9a"
    hashes = {
        principle("kind", check).hash
        for check in (None, AT_MOST_3, {"name": "words", "max": 4}, {"name": "sentences", "max": 3})
    }
    assert len(hashes) == 4
    same = principle("kind", {"name": "words", "max": 3, "min": None})
    assert same.hash == principle("kind", AT_MOST_3).hash


def test_check_is_the_best_or_the_worst_rating() -> None:
    assert expected_rating(certain_rating(True, 10)).score == 10
    assert expected_rating(certain_rating(False, 10)).score == 1
