"""Sample, critique, revise: what each request contains, and what a row's id depends on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines import Call, ScriptedEngine
from pipeline.ids import derive_seed
from pipeline.stages.base import Stage
from pipeline.types import Messages, SamplingParams, assistant, user
from tests.stages.builders import (
    make_constitution,
    make_engine,
    prompt,
    rows,
    run_chain,
    sample,
    supervised,
)


def generate_calls(engine: ScriptedEngine, request: str) -> list[Call]:
    """Requests whose last turn begins so."""
    return [c for c in engine.calls if c.messages[-1].content.startswith(request)]


async def test_requests_extend_the_conversation(tmp_path: Path) -> None:
    """Each request is the one before plus its reply: what a prefix cache needs."""
    engine = make_engine()
    states = await run_chain(tmp_path, supervised(engine), [prompt("hello")])
    (response,) = rows(tmp_path, states, "supervised/sample")
    (critique,) = rows(tmp_path, states, "supervised/critique-1")
    number = critique.principle_id[2:]
    first, second, third = (call.messages for call in engine.calls)
    assert first == (user("hello"),)
    assert second == (*first, assistant(response.response), user(f"CRITIQUE {number}"))
    assert third == (*second, assistant(critique.critique), user(f"REVISE {number}"))


async def test_later_rounds_see_the_last_revision(tmp_path: Path) -> None:
    """Round k starts from revision k - 1, and neither the initial response nor old critiques."""
    engine = make_engine()
    states = await run_chain(tmp_path, supervised(engine, rounds=4), 5)
    initial = {r.row_id: r.response for r in rows(tmp_path, states, "supervised/sample")}
    before = {r.initial_id: r for r in rows(tmp_path, states, "supervised/revise-1")}
    for number in (2, 3, 4):
        critiques = rows(tmp_path, states, f"supervised/critique-{number}")
        asked = {c.request_id: c.messages for c in engine.calls}
        for critique in critiques:
            messages = asked[critique.row_id]
            assert len(messages) == 3
            assert messages[1] == assistant(before[critique.initial_id].revision)
            assert critique.response_id == before[critique.initial_id].row_id
            texts = [message.content for message in messages]
            assert initial[critique.initial_id] not in texts
        before = {r.initial_id: r for r in rows(tmp_path, states, f"supervised/revise-{number}")}
        assert all(row.round == number for row in before.values())


async def test_one_principle_per_round(tmp_path: Path) -> None:
    """Critique and revision of a round share a principle; another round draws its own."""
    states = await run_chain(
        tmp_path, supervised(make_engine(), rounds=2, constitution=make_constitution(16)), 12
    )
    critiques = {r.row_id: r for r in rows(tmp_path, states, "supervised/critique-1")}
    for revision in rows(tmp_path, states, "supervised/revise-1"):
        assert revision.principle_id == critiques[revision.critique_id].principle_id
        assert revision.principle_hash == critiques[revision.critique_id].principle_hash
    second = {r.initial_id: r.principle_id for r in rows(tmp_path, states, "supervised/critique-2")}
    same = sum(second[r.initial_id] == r.principle_id for r in critiques.values())
    assert same < 6


async def test_samples_differ_by_seed(tmp_path: Path) -> None:
    engine = make_engine()
    states = await run_chain(tmp_path, [sample(engine, num_samples=4)], 3)
    responses = rows(tmp_path, states, "preference/sample")
    assert len({row.seed for row in responses}) == 12
    assert [row.sample_index for row in responses] == [0, 1, 2, 3] * 3
    # The seed comes from the row, never from where a loop stood.
    assert all(row.seed == derive_seed("sample", row.row_id) for row in responses)
    assert {call.request_id: call.seed for call in engine.calls} == {
        row.row_id: row.seed for row in responses
    }


async def test_multi_turn_prompts_stay_whole(tmp_path: Path) -> None:
    conversation: Messages = (user("hi"), assistant("hello"), user("and now?"))
    row = prompt("x")
    engine = make_engine()
    await run_chain(
        tmp_path, supervised(engine), [type(row)(row_id="0" * 24, messages=conversation)]
    )
    assert all(call.messages[:3] == conversation for call in engine.calls)


@pytest.mark.parametrize("trick", ["{{ 7*7 }}", "{% raw %}", "{{ principle }}"])
async def test_model_text_is_never_rendered(tmp_path: Path, trick: str) -> None:
    engine = make_engine(reply=lambda messages: trick)
    source = "{{ principle.critique_request }}: {{ response }}"
    await run_chain(tmp_path, supervised(engine, critique=source), [prompt(trick)])
    critique = generate_calls(engine, "CRITIQUE")[0].messages
    assert critique[0].content == critique[1].content == trick
    assert critique[2].content.endswith(f": {trick}")


async def ids(
    root: Path, stages: list[Stage], folder: str = "supervised/revise-1", **options: Any
) -> list[str]:
    states = await run_chain(root, stages, options.pop("prompts", 4), **options)
    return [row.row_id for row in rows(root, states, folder)]


async def test_ids_do_not_depend_on_execution(tmp_path: Path) -> None:
    """Shard size, concurrency and order change where and when a row is made, not which row."""
    plain = await ids(tmp_path / "a", supervised(make_engine()), shard_size=3)
    small = await ids(
        tmp_path / "b", supervised(make_engine(max_concurrency=1)), shard_size=1, shards_in_flight=1
    )
    large = await ids(tmp_path / "c", supervised(make_engine()), shard_size=64, shards_in_flight=9)
    assert plain == small == large
    turned = await ids(
        tmp_path / "d",
        supervised(make_engine()),
        prompts=[prompt(f"question {n}") for n in (3, 1, 0, 2)],
    )
    assert set(turned) == set(plain) and turned != plain


CHANGES: dict[str, Callable[[], list[Stage]]] = {
    "seed": lambda: supervised(make_engine(), seed=1),
    "engine": lambda: supervised(make_engine(name="another")),
    "sampling": lambda: supervised(make_engine(), sampling=SamplingParams(temperature=0.5)),
    "critique template": lambda: supervised(
        make_engine(), critique="{{ principle.critique_request }}!"
    ),
    "revise template": lambda: supervised(
        make_engine(), revise="{{ principle.revision_request }}!"
    ),
    "constitution": lambda: supervised(make_engine(), constitution=make_constitution(1)),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_ids_follow_what_determines_a_row(tmp_path: Path, change: str) -> None:
    plain = await ids(tmp_path / "a", supervised(make_engine()), prompts=12)
    changed = await ids(tmp_path / "b", CHANGES[change](), prompts=12)
    if change == "constitution":
        # Rows whose principle happens to be the one that stayed are the same rows.
        assert plain != changed
    else:
        assert not set(plain) & set(changed)


async def test_template_leaves_earlier_stages_alone(tmp_path: Path) -> None:
    plain = await ids(tmp_path / "a", supervised(make_engine()), "supervised/critique-1")
    changed = await ids(
        tmp_path / "b",
        supervised(make_engine(), revise="{{ principle.revision_request }}!"),
        "supervised/critique-1",
    )
    assert plain == changed


async def test_rows_state_their_origin(tmp_path: Path) -> None:
    engine = make_engine()
    states = await run_chain(tmp_path, supervised(engine), 2)
    prompts = {row.row_id for row in rows(tmp_path, states, "prompts")}
    responses = {row.row_id: row for row in rows(tmp_path, states, "supervised/sample")}
    critiques = {row.row_id: row for row in rows(tmp_path, states, "supervised/critique-1")}
    for row in rows(tmp_path, states, "supervised/revise-1"):
        assert row.parent_ids == (row.prompt_id, row.response_id, row.critique_id)
        assert row.prompt_id in prompts and row.critique_id in critiques
        assert row.initial_id == row.response_id and row.initial_id in responses
        assert row.model_fingerprint == engine.fingerprint and row.run_id == "r"
        assert row.num_tokens == len(row.revision.split())
    assert all(row.parent_ids == (row.prompt_id,) for row in responses.values())
