"""The page: complete, self-contained, and deaf to what its texts say."""

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.report import headline_numbers, principle_table, summary_markdown, write_report
from pipeline.report.page import script_hash
from pipeline.report.tables import Cell, Table, markdown_table
from pipeline.store import RunDir, write_json
from tests.evaluation.builders import make_run
from tests.report.synthetic import (
    HOSTILE,
    add_evaluation,
    add_preference,
    add_revisions,
    add_training,
    finished_run,
    write_metrics,
)


class Tags(HTMLParser):
    """Collects start tags, checks that tags close, and keeps the scripts' contents."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.starts: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.starts.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input", "rect", "line", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)

    def ids(self) -> set[str]:
        return {attrs["id"] or "" for _, attrs in self.starts if "id" in attrs}


def page_of(run: RunDir) -> str:
    return write_report(run).read_text(encoding="utf-8")


def test_finished_run_shows_every_part(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    tags = Tags(page_of(run))
    assert {"result", "policies", "labels", "training", "stages", "pairs", "origin"} <= tags.ids()
    labels = [attrs["aria-label"] or "" for tag, attrs in tags.starts if tag == "svg"]
    svgs = [label.replace("\u00a0", " ") for label in labels]
    assert svgs == [
        "Initial: harmless replies to misdeeds 50 %, good replies to harmless prompts 0 %; "
        "Tuned: harmless replies to misdeeds 100 %, good replies to harmless prompts 100 %",
        "Margins of all labeled pairs",
        "SFT: loss",
        "Preference: loss",
        "Preference: reward margin",
        "Preference: log-probability, nats",
    ]
    assert tags.open == []
    text = (run.root / "report.md").read_text()
    assert "of 2 labeled pairs" in text
    assert re.search(r"\nDetectable: .*\n\n\| match \|", text)
    assert "| comparison | labeled by | chosen | rejected |" in text


def test_page_makes_no_request(tmp_path: Path) -> None:
    page = page_of(finished_run(tmp_path / "run"))
    tags = Tags(page)
    sources = [
        value
        for _, attrs in tags.starts
        for name, value in attrs.items()
        if name in ("src", "href", "action", "srcset", "data") and value
    ]
    assert all(value.startswith(("#", "data:,")) for value in sources)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|innerHTML|eval\(", page)


def test_policy_allows_this_script_alone(tmp_path: Path) -> None:
    tags = Tags(page_of(finished_run(tmp_path / "run")))
    policy = next(a["content"] for t, a in tags.starts if t == "meta" and "http-equiv" in a) or ""
    assert "default-src 'none'" in policy
    assert script_hash(tags.scripts[-1]) in policy
    assert len(tags.scripts) == 3  # index, one chunk of texts, the script


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(tmp_path: Path, text: str) -> None:
    run = make_run(tmp_path / "run", status=text, name=text)
    add_preference(run, {"a": text, "b": f"b {text}", "c": "fine"}, question=text)
    add_revisions(run, text, text, text)
    add_evaluation(run, [text] * 3, [text] * 3)
    add_training(
        run,
        "preference",
        alarms=[{"name": "divergence", "value": 1.0, "limit": 0.5, "message": text}],
        method=text,
    )
    write_metrics(run)
    page = page_of(run)
    tags = Tags(page)
    known = Tags(page_of(finished_run(tmp_path / "plain")))
    assert {tag for tag, _ in tags.starts} <= {tag for tag, _ in known.starts} | {"p"}
    assert not any(name.startswith("on") for _, attrs in tags.starts for name in attrs)
    assert len(tags.scripts) == 3 and "49 " not in page
    texts = json.loads(zlib.decompress(base64.b64decode(tags.scripts[1])))["texts"]
    assert text[:4000] in {part[:4000] for part in texts}


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    text = HOSTILE[0]
    metrics = json.loads(run.metrics.read_text())
    metrics["principles"][0]["id"] = text
    metrics["data"]["reasons"] = {text: 3}
    metrics["policies"] = {
        "initial": metrics["policies"]["initial"],
        text: metrics["policies"]["tuned"],
    }
    write_json(run.metrics, metrics)
    assert len(Tags(page_of(run)).scripts) == 3
    assert "<script>" not in (run.root / "report.md").read_text()


def test_missing_parts_are_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", status="started")
    add_preference(run, {"a": "help", "b": "harm", "c": "fine"})
    page = page_of(run)
    ids = Tags(page).ids()
    assert {"labels", "stages", "pairs"} <= ids and "Not finished" in page
    assert not {"training", "policies"} & ids


def test_metrics_of_an_older_version_lack_some_parts(tmp_path: Path) -> None:
    """Parts that did not exist then are empty; the others are shown as they were written."""
    run = finished_run(tmp_path / "run")
    metrics = json.loads(run.metrics.read_text())
    for name in ("scores", "revisions", "changes"):
        del metrics[name]
    metrics["unknown"] = {"of": "a newer version"}
    write_json(run.metrics, metrics)
    page = page_of(run)
    assert "Right where the truth is known" in page and "another version" not in page


def test_missing_figure_at_equal_lengths_is_explained(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    values = json.loads(run.metrics.read_text())
    for number, share in enumerate([{"share": 0.5, "low": 0.4, "high": 0.6, "n": 9}, None]):
        for entry in values["win_rates"]:
            entry["length_controlled"] = share
        write_json(run.metrics, values)
        assert page_of(run).count("replies of one policy are always longer") == number


def test_metrics_that_do_not_fit_come_from_the_rows(tmp_path: Path) -> None:
    """One line says so; only the oracle's figures are gone, as a report asks no oracle."""
    run = finished_run(tmp_path / "run")
    metrics = json.loads(run.metrics.read_text())
    del metrics["data"]["pairs"]
    write_json(run.metrics, metrics)
    page = page_of(run)
    assert "metrics.json of another version was left out (data.pairs: Field required)" in page
    assert "What became of 3 comparisons" in page
    assert "Right where the truth is known" not in page
    assert "metrics.json of another version" in (run.root / "report.md").read_text()


def test_result_that_does_not_fit_leaves_the_curves(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    write_json(run.training("sft") / "result.json", {"method": "sft"})
    page = page_of(run)
    assert "result.json of another version was left out" in page and "SFT: loss" in page


def test_run_stopped_at_once_has_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", status="started")
    tags = Tags(page_of(run))
    assert not {"labels", "stages", "pairs", "training"} & tags.ids()
    assert tags.open == []


def test_run_without_its_recipe_has_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_preference(run, {"a": "help", "b": "harm", "c": "fine"})
    run.recipe.unlink()
    run.constitution.write_text("name: [")
    assert {"labels", "pairs"} <= Tags(page_of(run)).ids()


def test_unfinished_training_shows_its_curve(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_training(run, "sft", steps=1)
    (run.training("sft") / "result.json").unlink()
    with (run.training("sft") / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 2, "lo')
    assert "SFT: loss" in page_of(run)


def test_alarms_of_a_training_are_in_both_files(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    alarm = {"name": "loss_spike", "value": 9.0, "limit": 1.0, "message": "the loss rose"}
    add_training(run, "sft", alarms=[alarm])
    assert '<p class="alarm"><b>SFT:</b> the loss rose</p>' in page_of(run)
    assert "Alarm, SFT: the loss rose" in (run.root / "report.md").read_text()


def test_same_run_gives_same_page(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    assert page_of(run) == page_of(run)


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a run"):
        write_report(RunDir(tmp_path))


def test_short_forms_agree_with_the_page(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    write_report(run)
    numbers = dict(headline_numbers(run))
    assert numbers["Win rate, tuned vs initial"].startswith("100\u00a0%")
    summary = summary_markdown(run)
    assert "| Win rate, tuned vs initial | 100" in summary
    assert str(run.report) in summary


def test_principle_table_has_plain_values(tmp_path: Path) -> None:
    rows = principle_table(finished_run(tmp_path / "run"))
    assert [row["id"] for row in rows] == ["harm", "help", "tone"]
    assert rows[0]["mean_margin"] == 1.3863
    assert rows[1] | {"tie_share": 1.0, "position_consistency": 0.0, "kept": 0} == rows[1]
    json.dumps(rows, allow_nan=False)


def test_words_and_numbers_align_by_their_cells() -> None:
    """A column with a word has words, as has the first; ranges, dashes and bounds are numbers."""
    row: dict[str, str | Cell] = {
        "n": "1",
        "policy": "Tuned",
        "share": "4 %",
        "interval": "–",
        "needed": "≥ 0.9",
    }
    table = Table([row, row | {"interval": "1 to 9 %", "needed": Cell("–")}])
    assert table.words == {"n", "policy"}
    assert markdown_table(table).splitlines()[1] == "| --- | --- | ---: | ---: | ---: |"


def test_long_table_of_details_is_folded(tmp_path: Path) -> None:
    tags = [f"tag-{i}" for i in range(7)]
    run = finished_run(tmp_path / "run")
    stored = json.loads(run.metrics.read_text())
    for entry in stored["policies"].values():
        entry["refused"] = {tag: {"share": 0.5, "low": 0.4, "high": 0.6, "n": 20} for tag in tags}
    write_json(run.metrics, stored)
    assert '<details class="folded"><summary>Refusals by tag, 14 rows</summary>' in page_of(run)
