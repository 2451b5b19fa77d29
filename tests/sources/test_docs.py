"""The examples of docs/labels.md are real."""

import re
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from pipeline.config.audits import CollapseConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.sources.config import AnySource, FeedbackSource, load_mixture, load_sources
from pipeline.sources.feedback import import_feedback

PAGE = (PROJECT_ROOT / "docs" / "labels.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_source_list_of_page_loads(tmp_path: Path) -> None:
    path = tmp_path / "labels.yaml"
    listed, mixture = [block for block in blocks("yaml") if block.startswith("sources:")]
    path.write_text(listed, encoding="utf-8")
    assert [s.type for s in load_sources(path).sources] == ["hh-rlhf", "pairs", "expert", "dataset"]
    path.write_text(mixture, encoding="utf-8")
    assert [s.type for s in load_mixture(path, "kto").sources] == ["feedback", "pairs", "run"]


def test_event_of_page_is_read(tmp_path: Path) -> None:
    (line,) = blocks("json")
    path = tmp_path / "events.jsonl"
    path.write_text(line, encoding="utf-8")
    (row,) = import_feedback(FeedbackSource(name="app", path=path)).rows
    assert (row.completion, row.label, row.weight) == ("Go away.", False, 1.0)


def test_python_of_page_compiles_and_imports() -> None:
    for block in blocks("python"):
        compile(block, "labels.md", "exec")
        imports = [line for line in block.splitlines() if line.startswith("from ")]
        exec("\n".join(imports), {})


def test_thresholds_of_page_are_defaults() -> None:
    config = CollapseConfig()
    for name, shown in (
        ("closing_phrase", config.max_closing_share),
        ("tail_entropy", config.min_tail_entropy),
        ("common_ngram", config.max_ngram_share),
        ("loops", config.max_loop_share),
        ("distinct_pairs", config.min_distinct),
        ("near_duplicates", config.max_duplicate_share),
        ("evasive", config.max_evasive_share),
        ("evasive_lift", config.max_evasive_lift),
        ("tag_coverage", config.min_tag_coverage),
    ):
        (row,) = re.findall(rf"^\| `{name}` \|.*$", PAGE, re.MULTILINE)
        assert f" {shown:g} |" in row, name


def test_mappings_of_page_are_valid() -> None:
    section = PAGE.split("### Mappings for common files")[1].split("**A line")[0]
    for row in section.splitlines():
        code = re.findall(r"`([a-z]+: [^`]+)`", row)
        fields = dict(yaml.safe_load(text).popitem() for text in code if text != "prompt: input")
        if "columns" in fields:
            fields.pop("system", None)
            adapter: TypeAdapter[AnySource] = TypeAdapter(AnySource)
            adapter.validate_python({"name": "s", "path": "a.jsonl", **fields})
