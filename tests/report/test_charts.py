"""Axes, curves and columns by hand; and numbers as people read them."""

import base64
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pipeline.evaluation.results import DataMetrics, LabelMetrics, MarginBin
from pipeline.report.charts import (
    MAX_POINTS,
    Line,
    Scale,
    histogram,
    line_chart,
    nice_ticks,
    smooth,
)
from pipeline.report.numbers import (
    NBSP,
    count_of,
    duration,
    joined,
    number,
    percent,
    percent_range,
    points,
)
from pipeline.report.page import render_plot
from pipeline.report.policy_charts import name_heights
from pipeline.report.source import read_run
from pipeline.report.tables import Cell, Table, markdown_table
from tests.evaluation.builders import make_run
from tests.report.synthetic import finished_run


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0, 100, [0, 25, 50, 75, 100]),
        (-3, 2, [-4, -2, 0, 2]),
        (0.42, 0.69, [0.4, 0.5, 0.6, 0.7]),
        (5, 5, [4.5, 4.75, 5, 5.25, 5.5]),
        (0.3, 0.1 + 0.2, [-0.25, 0, 0.25, 0.5, 0.75, 1]),
    ],
)
def test_ticks_are_round_and_span(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_scale_maps_ends_to_ends() -> None:
    scale = Scale(0, 10, 100, 0)
    assert (scale(0), scale(10), scale(2.5)) == (100, 0, 75)


def test_moving_mean_by_hand() -> None:
    """Three neighbors each: (0 + 3) / 2, (0 + 3 + 6) / 3, (3 + 6) / 2."""
    assert smooth([0.0, 3.0, 6.0]) == [1.5, 3.0, 4.5]


def test_long_curves_keep_their_ends() -> None:
    n = 5000
    svg = line_chart("loss", [float(i) for i in range(n)], [Line("loss", [1.0] * n, "c-main")])
    attribute = re.search(r'data-chart="([^"]*)"', svg)
    assert attribute is not None
    data = json.loads(attribute[1].replace("&#34;", '"'))
    assert len(data["x"]) == MAX_POINTS and (data["x"][0], data["x"][-1]) == (0, n - 1)


def margins(*bins: tuple[float, int, int]) -> DataMetrics:
    """Preference data with these bins of low, kept, dropped; only the bins matter."""
    return DataMetrics(
        pairs=0,
        kept=0,
        reasons={},
        margins=[MarginBin(low=low, kept=kept, dropped=dropped) for low, kept, dropped in bins],
        labels=LabelMetrics(drawn=0, labeled=0, unparsed=0, kept=0),
    )


def test_chart_without_numbers_is_empty() -> None:
    assert line_chart("loss", [], [Line("loss", [], "c-main")]) == ""
    assert line_chart("loss", [1.0], [Line("loss", [math.nan], "c-main")]) == ""
    assert histogram("margins", None) == ""
    assert histogram("margins", margins((0.0, 0, 0))) == ""


def test_chart_skips_broken_values() -> None:
    svg = line_chart("loss", [1.0, 2.0, 3.0], [Line("loss", [1.0, math.inf, 3.0], "c-main")])
    assert "inf" not in svg and "nan" not in svg


def test_columns_stack_kept_and_dropped() -> None:
    """Scale 0 to 4 over 164 units: 2 kept are 82 high, 1 dropped 41 on top of them."""
    svg = histogram("m", margins((0.0, 2, 1), (0.5, 4, 0)))
    heights = [float(h) for h in re.findall(r'class="(?:kept|dropped)"[^>]*height="([\d.]+)"', svg)]
    assert heights == [82.0, 41.0, 164.0, 0.0]
    assert "margin 0 to 0.5: 2 kept, 1 dropped" in svg and "margin 0.5 or more" in svg


def test_chart_texts_are_escaped() -> None:
    svg = line_chart("<b>&", [1.0, 2.0], [Line("</svg>", [1.0, 2.0], "c-main")])
    assert "<b>" not in svg and svg.count("</svg>") == 1


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.764, "76 %"),
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.004, "0.4 %"),
        (0.996, "99.6 %"),
        (None, "–"),
    ],
)
def test_percent_keeps_the_ends_apart(share: float | None, text: str) -> None:
    assert percent(share).replace(NBSP, " ") == text


def test_numbers_read_naturally() -> None:
    assert percent_range(0.561, 0.65).replace(NBSP, " ") == "56 to 65 %"
    assert (points(0.123), points(-0.5), points(0.004)) == ("+12", "−50", "+0.4")
    assert (number(12345), number(-1.25, 2), number(None)) == ("12,345", "−1.25", "–")
    assert [duration(s) for s in (0.44, 12.3, 185, 7500, None)] == [
        "0.4 s",
        "12 s",
        "3 min 05 s",
        "2 h 05 min",
        "–",
    ]
    assert (count_of(1, "pair"), count_of(1204, "pair")) == ("1 pair", "1,204 pairs")
    assert [joined(list(s)) for s in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]


def test_markdown_cells_cannot_break_out() -> None:
    assert markdown_table(Table([])) == ""
    assert markdown_table(Table([{"n": "a|b", "v": "1"}])).splitlines()[-1] == "| a\\|b | 1 |"


def test_note_of_a_table_is_above_its_rows() -> None:
    table = Table([{"n": "a"}], note="a|b")
    assert markdown_table(table).splitlines() == ["a\\|b", "", "| n |", "| --- |", "| a |"]
    assert markdown_table(Table([], note="a")) == ""


def test_notes_become_a_column_at_the_end() -> None:
    """A row without a note leaves its cell empty."""
    table = Table([{"n": Cell("a", note="why"), "v": "1"}, {"n": "b", "v": "2"}])
    assert markdown_table(table).splitlines() == [
        "| n | v | explanation |",
        "| --- | ---: | --- |",
        "| a | 1 | why |",
        "| b | 2 |  |",
    ]


@pytest.mark.parametrize(
    "changes, title",
    [
        ({}, "Harmless replies to misdeeds and good replies to harmless prompts, by policy"),
        ({"policies": {}}, "Margins of all labeled pairs"),
    ],
    ids=["policies", "labels"],
)
def test_plot_stands_alone(tmp_path: Path, changes: dict[str, Any], title: str) -> None:
    """A picture of its own has a name space, a size, and a style for each of its classes."""
    data = read_run(finished_run(tmp_path / "run"))
    data = replace(data, metrics=data.metrics.model_copy(update=changes))
    said, address = render_plot(data) or ("", "")
    assert said == title
    root = ElementTree.fromstring(base64.b64decode(address.partition(",")[2]))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert (root.get("width"), root.get("viewBox")) == ("920", "0 -14 460 224")
    classes = {name for each in root.iter() for name in (each.get("class") or "").split()}
    assert classes and all(
        f".{name} {{" in (root[0].text or "") for name in classes - {"name", "wide"}
    )


def test_run_without_figures_has_no_plot(tmp_path: Path) -> None:
    assert render_plot(read_run(make_run(tmp_path / "run"))) is None


def test_names_of_near_points_can_all_be_read() -> None:
    """Three points at one place have names above it, below it and a line further down; one that is
    as high, but 60 to the right, has its own above it.
    """
    spots = [(100.0, 50.0), (110.0, 50.0), (105.0, 50.0), (170.0, 50.0), (100.0, 120.0)]
    assert name_heights(spots) == [43, 67, 80, 43, 113]
