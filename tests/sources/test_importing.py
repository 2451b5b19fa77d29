"""Source lists, our own data sets as a source, and written files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, DataError
from pipeline.records import PreferenceRow, rows_from_table, table_from_rows
from pipeline.sources.config import DatasetSource, load_sources
from pipeline.sources.importing import import_source, import_sources
from pipeline.sources.mixing import mix
from pipeline.sources.rows import LabeledRow, write_labels
from pipeline.training.worker.encoding import NEEDED
from pipeline.types import user
from tests.sources.builders import make_label, write_lines

OURS = PreferenceRow(
    row_id="p1",
    prompt_id="x",
    judgment_id="j1",
    comparison="samples",
    messages=(user("Hi"),),
    chosen="good",
    rejected="bad",
    soft_label=0.9,
    margin=2.197,
)


def test_list_is_read_and_mixed(tmp_path: Path) -> None:
    crowd = write_lines(tmp_path / "a.jsonl", {"prompt": "Hi", "chosen": "a", "rejected": "b"})
    desk = write_lines(tmp_path / "b.jsonl", {"prompt": "Hi", "answer": "a", "response": "c"})
    listed = tmp_path / "labels.yaml"
    listed.write_text(
        f"sources:\n  - {{type: pairs, name: crowd, path: {crowd}, weight: 2}}\n"
        f"  - {{type: expert, name: desk, path: {desk}}}\nsize: 3\n",
        encoding="utf-8",
    )
    config = load_sources(listed)
    imports = import_sources(config)
    mixture = mix(imports, {s.name: s.weight for s in config.sources}, size=config.size)
    assert [(c.quota, c.num_selected) for c in mixture.counts] == [(2, 1), (1, 1)]
    assert imports[0].record.text() == "crowd (human): 1 of 1 rows usable"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "{type: pairs, name: a, path: x, wieght: 2}",
            r"line 2: .*wieght' is not .*did you mean 'weight'",
        ),
        ("{type: hh-rlhf, name: a, path: x, label_accuracy: 0.5}", "line 2: .*label_accuracy"),
        ("{type: hhh, name: a, path: x, trust: 0.9}", "line 2: .*mean 'label_accuracy'"),
        ("{type: other, name: a, path: x}", "line 2"),
        ("{type: hhh, name: a, path: x, weight: 0}", "line 2: .*weight.* greater than 0"),
    ],
)
def test_wrong_list_names_the_line(tmp_path: Path, line: str, message: str) -> None:
    listed = tmp_path / "labels.yaml"
    listed.write_text(f"sources:\n  - {line}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_sources(listed)


def test_names_of_sources_differ(tmp_path: Path) -> None:
    listed = tmp_path / "labels.yaml"
    line = "  - {type: hhh, name: a, path: x}\n"
    listed.write_text("sources:\n" + line + line, encoding="utf-8")
    with pytest.raises(ConfigError, match="two sources have the name 'a'"):
        load_sources(listed)


def test_own_data_set_keeps_its_labels(tmp_path: Path) -> None:
    path = tmp_path / "preference.parquet"
    pq.write_table(table_from_rows([OURS], PreferenceRow), path)
    (row,) = import_source(DatasetSource(name="judge", path=path)).rows
    assert (row.row_id, row.soft_label, row.judgment_id) == ("p1", 0.9, "j1")
    assert (row.source, row.source_kind, row.source_index) == ("judge", "ai", 1)


def test_other_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table_from_rows([OURS], PreferenceRow).drop_columns(["soft_label"]), path)
    with pytest.raises(DataError, match="no column 'soft_label'"):
        import_source(DatasetSource(name="judge", path=path))
    path.write_text("no", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        import_source(DatasetSource(name="judge", path=path))
    with pytest.raises(DataError, match="does not exist"):
        import_source(DatasetSource(name="judge", path=tmp_path / "none.parquet"))


def test_written_labels_can_be_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    row = make_label("Q", "a", "b")
    write_labels(path, [row, make_label("R", reason="tie")])
    table = pq.read_table(path)
    assert set(NEEDED["pairs"]) <= set(table.column_names)
    assert rows_from_table(table, LabeledRow) == [row]
    with pytest.raises(DataError, match="no usable row"):
        write_labels(path, [make_label("R", reason="tie")])


def write_dataset(path: Path, *changes: dict[str, Any]) -> DatasetSource:
    rows = [replace(OURS, **{"row_id": f"p{i}", **each}) for i, each in enumerate(changes)]
    pq.write_table(table_from_rows(rows, PreferenceRow), path)
    return DatasetSource(name="judge", path=path)


@pytest.mark.parametrize("label", [0.2, 1.7, float("nan"), -1.0])
def test_label_that_would_turn_a_pair_is_refused(tmp_path: Path, label: float) -> None:
    """P(chosen is preferred) below 0.5 says that the sides are exchanged."""
    source = write_dataset(tmp_path / "a.parquet", {}, {"soft_label": label})
    with pytest.raises(
        DataError, match=rf"a\.parquet, row 2 \(p1\): the soft label is {label}, .*needed"
    ):
        import_source(source)


def test_unfit_rows_of_a_data_set_are_dropped(tmp_path: Path) -> None:
    source = write_dataset(
        tmp_path / "a.parquet",
        {},
        {"rejected": "good\n"},
        {"chosen": " "},
        {"soft_label": 0.5},
        {"messages": ()},
        {"messages": (user("a"), user("b"))},
        {"status": "dropped", "reason": "old"},
        {"soft_label": None},
    )
    imported = import_source(source)
    assert imported.record.reasons == {
        "empty response": 1,
        "identical responses": 1,
        "old": 1,
        "tie": 1,
        "the prompt does not end with a user turn": 1,
        "turns do not alternate": 1,
    }
    assert [row.row_id for row in imported.usable] == ["p0", "p7"]


def test_columns_of_another_type(tmp_path: Path) -> None:
    """What Arrow can cast is read; anything else is one line."""
    source = write_dataset(tmp_path / "a.parquet", {})
    table = pq.read_table(source.path)

    def write(name: str, values: list[Any]) -> None:
        pq.write_table(table.set_column(table.column_names.index(name), name, [values]), path)

    path = source.path
    write("soft_label", ["0.75"])
    assert [row.soft_label for row in import_source(source).rows] == [0.75]
    for name, values, message in (
        ("chosen", [[{"role": "assistant", "content": "good"}]], "cannot be read as Parquet"),
        ("soft_label", ["high"], "cannot be read as Parquet"),
        ("messages", [[{"role": "user", "content": None}]], "must be a list of turns"),
        ("messages", [[{"role": "tool", "content": "7"}]], "must be a list of turns"),
        ("status", ["fine"], r"row 1 \(p0\): the status is 'fine', but only ok"),
    ):
        write(name, values)
        with pytest.raises(DataError, match=message):
            import_source(source)


def test_text_instead_of_messages_names_the_row(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "a.parquet", {})
    table = pq.read_table(source.path)
    column = table.column_names.index("messages")
    pq.write_table(table.set_column(column, "messages", [["Hi"]]), source.path)
    with pytest.raises(DataError, match=r"row 1 \(p0\): 'messages' must be a list of turns"):
        import_source(source)
