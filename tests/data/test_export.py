"""Data sets: the right rows with reasons for the others, versions, the card, other formats."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.config import RunConfig
from pipeline.constitution import load_constitution
from pipeline.data.dataset import PREFERENCE_SCHEMA, SFT_SCHEMA, known_prompt_ids, load_dataset
from pipeline.data.export import export_preference, export_sft, sft_folders
from pipeline.data.json_lines import export_lines
from pipeline.data.markdown import code_span, escape_markdown
from pipeline.errors import DataError, StoreError
from pipeline.ids import file_hash, row_id
from pipeline.store import RunDir, write_json
from tests.run.builders import CONFIG, make_run, whole_run, write_stage
from tests.stages.builders import make_constitution


def read(run: RunDir, name: str) -> list[dict[str, Any]]:
    return list(pq.read_table(run.dataset / f"{name}.parquet").to_pylist())


def sft(run: RunDir, **changes: Any) -> dict[str, Any]:
    config = CONFIG.model_copy(update={"supervised": CONFIG.supervised.model_copy(update=changes)})
    return export_sft(run, config, load_constitution(run.constitution))


def preference(run: RunDir) -> dict[str, Any]:
    return export_preference(run, CONFIG, load_constitution(run.constitution))


async def test_every_revision_is_learned_from(tmp_path: Path) -> None:
    run = await whole_run(tmp_path / "r")
    counts = sft(run)
    rows = read(run, "sft")
    assert counts["rows"] == counts["candidates"] == len(rows) == 20
    assert tuple(rows[0]) == tuple(SFT_SCHEMA.names)
    revisions = {
        row["row_id"]: row
        for k in (1, 2)
        for path in (run.root / f"supervised/revise-{k}").glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    for row in rows:
        source = revisions[row["completion_id"]]
        assert (row["completion"], row["round"]) == (source["revision"], source["round"])
        assert row["prompt_id"] == source["prompt_id"] == row_id("prompt", row["messages"])
    assert sft(run, sft_rows="last")["rows"] == 10
    assert {row["round"] for row in read(run, "sft")} == {2}


def test_rounds_name_the_stages() -> None:
    def folders(rounds: int, rows: str) -> tuple[str, ...]:
        return sft_folders(
            RunConfig.model_validate(
                {
                    **CONFIG.model_dump(exclude_unset=True),
                    "preference": {"comparisons": "samples"},
                    "supervised": {"revise": {"rounds": rounds}, "sft_rows": rows},
                }
            )
        )

    assert folders(2, "all") == ("supervised/revise-1", "supervised/revise-2")
    assert folders(2, "last") == ("supervised/revise-2",)
    assert folders(0, "all") == ("supervised/sample",)


def test_unfit_revisions_are_counted(tmp_path: Path) -> None:
    """Left out with a reason; a revision that changed nothing is kept."""
    run = make_run(tmp_path / "r")
    texts = {
        "good": {},
        "cut": {"finish_reason": "length"},
        " \n": {},
        "gone": {"status": "failed"},
        "good ": {"revision": "good"},
        "the response": {},
    }
    write_stage(run, texts)
    counts = sft(run, revise=CONFIG.supervised.revise.model_copy(update={"rounds": 1}))
    assert [row["completion"] for row in read(run, "sft")] == ["good", "the response"]
    assert counts["reasons"] == {
        "truncated": 1,
        "empty": 1,
        "revision is failed": 1,
        "same text as an earlier row of the prompt": 1,
    }
    assert counts["candidates"] == 6 == counts["rows"] + sum(counts["reasons"].values())


async def test_pairs_keep_label_and_origin(tmp_path: Path) -> None:
    run = await whole_run(tmp_path / "r")
    counts = preference(run)
    rows = read(run, "preference")
    assert counts["rows"] == len(rows) == 10 and tuple(rows[0]) == tuple(PREFERENCE_SCHEMA.names)
    for row in rows:
        assert row["status"] == "ok" and 0.5 < row["soft_label"] <= 1
        assert row["chosen"] < row["rejected"]
        assert row["run_id"] == "r"


async def test_equal_runs_give_equal_files(tmp_path: Path) -> None:
    """A training job is recognized by its data's hash, so a resumed export must not change it."""
    run = await whole_run(tmp_path / "r")
    first = sft(run), preference(run)
    assert (sft(run), preference(run)) == first
    manifest = load_dataset(run)
    assert manifest and manifest.version == 1 and manifest.num_prompts == 10
    for info in manifest.sets.values():
        assert file_hash(run.root / info.path) == info.sha256
        assert all(file_hash(run.root / path) == sha for path, sha in info.inputs.items())


async def test_missing_shard_stops_the_export(tmp_path: Path) -> None:
    run = await whole_run(tmp_path / "r")
    before = preference(run)
    (run.root / "preference/pair/shard-00001.parquet").write_bytes(b"damaged")
    with pytest.raises(StoreError, match=r"preference/pair/shard-00001 .* `rlaif resume r`"):
        preference(run)
    assert file_hash(run.dataset / "preference.parquet") == before["sha256"]


async def test_version_appends_to_its_parent(tmp_path: Path) -> None:
    one = await whole_run(tmp_path / "one", 6)
    old = sft(one), preference(one)
    two = await whole_run(tmp_path / "two", 4, first=6, parent="one")
    new = sft(two), preference(two)
    assert [n["version"] for n in new] == [2, 2]
    assert [(n["rows"], n["from_parent"]) for n in new] == [(20, 12), (10, 6)]
    for name in ("sft", "preference"):
        ids = [row["row_id"] for row in read(two, name)]
        assert ids[: len(read(one, name))] == [row["row_id"] for row in read(one, name)]
        assert len(set(ids)) == len(ids)
    manifest = load_dataset(two)
    assert manifest and manifest.parent and manifest.parent.run_id == "one"
    assert manifest.num_prompts == 10 == len({*known_prompt_ids(two)})
    assert (sft(one), preference(one)) == old
    three = await whole_run(tmp_path / "three", 1, first=20, parent="two")
    assert sft(three)["rows"] == 22 and len({*known_prompt_ids(three)}) == 11


async def test_repeated_prompts_are_not_doubled(tmp_path: Path) -> None:
    """A child that asked its parent's prompts again brings the same rows: none twice."""
    one = await whole_run(tmp_path / "one", 6)
    sft(one), preference(one)
    two = await whole_run(tmp_path / "two", 6, parent="one")
    assert (sft(two)["rows"], preference(two)["rows"]) == (12, 6)
    assert preference(two)["reasons"] == {"already in the parent's version": 6}


async def test_damaged_parent_is_refused(tmp_path: Path) -> None:
    one = await whole_run(tmp_path / "one", 3)
    two = await whole_run(tmp_path / "two", 3, first=3, parent="one")
    with pytest.raises(StoreError, match="continues the data set of one, which has none"):
        sft(two)
    sft(one)
    (one.dataset / "sft.parquet").write_bytes(b"damaged")
    with pytest.raises(StoreError, match="damaged; `rlaif resume one` writes it again"):
        sft(two)


async def test_card_states_what_is_there(tmp_path: Path) -> None:
    run = await whole_run(tmp_path / "r")
    statuses = ("passed", "passed", "skipped")
    findings = [{"name": f"check_{i}", "status": status} for i, status in enumerate(statuses)]
    audit = {"judges": [{"findings": findings}], "collapse": None}
    write_json(run.root / "preference" / "audit.json", audit)
    sft(run), preference(run)
    card = (run.dataset / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["license"] == "other" and metadata["pretty_name"] == "small"
    assert metadata["size_categories"] == ["n<1K"]
    assert {c["config_name"] for c in metadata["configs"]} == {"preference", "sft"}
    assert "Of 3 checks of labels and texts before the export, 2 passed, 0 failed and 1 had" in card
    assert f"`rlaif verify {run.run_id}`" in card
    for text in (
        "data_files: preference.parquet",
        "| run | `r` |",
        "| prompts | 10 |",
        "20 rows; SHA-256",
        "| kept | 10 |",
        "| labels | `scripted` |",
        "of 10 labeled pairs and ",
        "| samples | judge | compared responses | compared responses | 10 | 10 | 100.0 % |",
        "## Limits",
    ):
        assert text in card
    assert str(tmp_path) not in card
    assert (run.dataset / "recipe.yaml").read_bytes() == run.recipe.read_bytes()


def test_markdown_shows_a_text_and_nothing_else() -> None:
    assert escape_markdown("a|b\n<i>`x`") == "a\\|b &lt;i&gt;\\`x\\`"
    assert code_span("(`A`|\n") == "`('A'\\|`" and code_span("") == ""


HOSTILE = (
    "![x](https://tracker.example/p.png) <img src=//tracker.example> [y](javascript:1) `a` | b"
)


async def test_names_in_the_card_are_text(tmp_path: Path) -> None:
    """A constitution or a recipe may come from a stranger; the card is shown by the Hub."""
    run = await whole_run(tmp_path / "r")
    constitution = make_constitution().model_copy(update={"name": HOSTILE})
    judge = CONFIG.preference.judge.model_copy(update={"options": ("`<b>`|A", "(B)")})
    config = CONFIG.model_copy(
        update={
            "description": f"{HOSTILE}\n\n<script>x</script>",
            "preference": CONFIG.preference.model_copy(update={"judge": judge}),
        }
    )
    export_preference(run, config, constitution)
    card = (run.dataset / "README.md").read_text()
    body = card.split("---\n", 2)[2]  # the metadata above it has the Hub's "n<1K"
    outside_code = re.sub(r"(?<!\\)`[^`]*(?<!\\)`", "", body)
    assert "tracker.example" in outside_code and "<" not in outside_code
    links = re.findall(r"(?<!\\)\]\((.*?)\)", outside_code)
    assert links == ["constitution.yaml", "recipe.yaml"]
    rows = [line for line in card.splitlines() if line.startswith("| constitution")]
    assert len(rows) == 1 and rows[0].replace("\\|", "").count("|") == 3


def exported(run: RunDir, shape: str) -> list[dict[str, Any]]:
    """The lines that `export_lines` writes."""
    path = run.root / f"{shape}.jsonl"
    count, left_out = export_lines(run, path, shape)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert (len(lines), left_out) == (count, {})
    return lines


async def test_trl_lines_round_trip(tmp_path: Path) -> None:
    run = await whole_run(tmp_path / "r")
    preference(run)
    lines, rows = exported(run, "trl"), read(run, "preference")
    assert len(lines) == 10
    for line, row in zip(lines, rows, strict=True):
        assert line["prompt"] == row["messages"]
        assert line["chosen"] == [{"role": "assistant", "content": row["chosen"]}]
        assert line["rejected"] == [{"role": "assistant", "content": row["rejected"]}]
        assert (line["row_id"], line["soft_label"]) == (row["row_id"], row["soft_label"])


async def test_other_formats_keep_all_texts(tmp_path: Path) -> None:
    run = await whole_run(tmp_path / "r")
    preference(run)
    rows = read(run, "preference")
    expected = {(row["chosen"], row["rejected"]) for row in rows}
    lines = exported(run, "openai")
    assert expected == {
        (line["preferred_output"][0]["content"], line["non_preferred_output"][0]["content"])
        for line in lines
    }
    assert [line["input"]["messages"] for line in lines] == [row["messages"] for row in rows]
    halves = exported(run, "kto")
    assert len(halves) == 20
    good = [h["completion"][0]["content"] for h in halves if h["label"]]
    bad = [h["completion"][0]["content"] for h in halves if not h["label"]]
    assert expected == set(zip(good, bad, strict=True))


async def test_run_without_pairs_exports_nothing(tmp_path: Path) -> None:
    run = await whole_run(tmp_path / "r")
    sft(run)
    with pytest.raises(DataError, match="run r has no preference set to export"):
        export_lines(run, tmp_path / "x", "trl")
    assert not (tmp_path / "x").exists()
