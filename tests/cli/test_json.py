"""`--json`: one value with stable keys on standard output, and nothing else."""

import json
import re
from pathlib import Path
from typing import Any

from pipeline.config.paths import PROJECT_ROOT
from tests.cli.commands import Rlaif, rlaif
from tests.cli.test_examples import COMMANDS
from tests.run.builders import write_recipe
from tests.sources.builders import write_lines

__all__ = ["rlaif"]

QUIET = {"audit": {"enabled": False}, "sample": {"num_samples": 2}}


def test_every_command_that_a_program_reads(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, prompts=4, heldout=1, preference=QUIET)

    def values(*command: object, code: int = 0) -> Any:
        ended = rlaif(*command, "--json")
        assert ended.code == code, ended.err
        return json.loads(ended.out)

    assert values("runs") == []
    for name in ("one", "two"):
        assert rlaif("run", recipe, "--run-id", name, "--no-prefect").code == 0
    (new, old) = values("runs")
    assert {*new} == {"run", "folder", "status", "constitution", "pairs", "version", "report"}
    assert (old["run"], old["status"], old["version"]) == ("one", "finished", 1)
    diff = values("diff", "one", "two")
    assert {*diff} == {
        "old", "new", "settings", "constitution", "files", "prompts", "labels", "figures"
    }  # fmt: skip
    assert diff["prompts"] == {"both": 4, "only_old": 0, "only_new": 0}
    assert sum(each["flipped"] for each in diff["labels"].values()) == 0 < len(diff["labels"])
    why = values("why", "one")
    assert {*why["reasons"][0]} == {"folder", "status", "reason", "rows", "example"}
    origin = values("why", why["reasons"][0]["example"])
    assert origin == values("trace", why["reasons"][0]["example"], "--run", origin["run"])
    assert origin["row"]["row_id"] == why["reasons"][0]["example"] and origin["parents"]
    (checked,) = values("check", recipe)
    assert (checked["kind"], checked["path"]) == ("recipe", str(recipe))
    assert values("verify", "one") == {
        "run": "one",
        "problems": [],
        "uncovered": [],
        "covered": values("verify", "one")["covered"],
    }
    (tmp_path / "outputs/runs/one/report.md").write_text("other")
    assert len(values("verify", "one", code=1)["problems"]) == 1
    audit = values("audit", "one")
    assert {*audit} == {"run", "passed", "notes", "judges", "collapse"} and audit["passed"]
    assert audit["judges"][0]["findings"][0]["status"] in ("passed", "failed", "skipped")
    (linted,) = values("constitution", "lint", "constitutions/house_style.yaml")
    assert {*linted} == {"path", "findings", "num_principles"}
    old_file, new_file = tmp_path / "constitution.yaml", tmp_path / "new.yaml"
    new_file.write_text(old_file.read_text().replace("more polite, 0", "kinder, 0"))
    change = values("constitution", "diff", old_file, new_file)
    assert {*change} == {*diff["constitution"]} and len(change["reworded"]) == 1
    impact = values("constitution", "impact", "one", new_file)
    assert impact["before_run"] == "one" and impact["total"]["after"] > 0
    exported = values("export", "one", "--out", tmp_path / "pairs.jsonl")
    assert {*exported} == {"run", "out", "format", "lines", "left_out"}
    assert exported["lines"] == len((tmp_path / "pairs.jsonl").read_text().splitlines())
    plan = values("plan", recipe, "--prompts", 2)
    assert {*plan["total"]} == {"stage", "rows", "tokens", "hours", "money"}
    ended = rlaif("diff", "one", "none", "--json")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    # The next command prints for people again.
    assert "one" in rlaif("runs").out


def test_labels(rlaif: Rlaif, tmp_path: Path) -> None:
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    for name in ("one", "two"):
        write_lines(tmp_path / f"{name}.jsonl", pair)
    listed = tmp_path / "sources.yaml"
    listed.write_text(
        "sources:\n"
        + "".join(
            f"  - {{type: pairs, name: {name}, path: {tmp_path / name}.jsonl}}\n"
            for name in ("one", "two")
        )
    )
    ended = rlaif("labels", "import", listed, "--out", tmp_path / "labels.parquet", "--json")
    mixed = json.loads(ended.out)
    assert (mixed["rows"], mixed["shared"], mixed["contradicted"]) == (2, 1, 0)
    assert [source["num_ok"] for source in mixed["sources"]] == [1, 1]
    assert "2 rows from 2 sources" in ended.err
    (agreed,) = json.loads(rlaif("labels", "agreement", listed, "--json").out)
    assert (agreed["sources"], agreed["num_items"]) == (["one", "two"], 1)
    assert agreed["equal"]["share"] == 1.0


def test_page_names_the_commands() -> None:
    text = (PROJECT_ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = text.split("## Output for programs")[1].split("\n\n")[1].split(": ", 1)[1]
    words, group = [], ""
    for name in re.findall("`([^`]+)`", section.split("Standard output")[0]):
        first, _, last = name.rpartition(" ")
        # `constitution lint`, `diff`: the group is said once.
        group = first or (group if f"{group} {name}" in COMMANDS else "")
        words.append(f"{group} {last}".strip())
    takes = {
        name
        for name, command in COMMANDS.items()
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert set(words) == takes and len(words) == len(takes)
