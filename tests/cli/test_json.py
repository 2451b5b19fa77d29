"""`--json`: one value with stable keys on standard output, and nothing else."""

import json
from pathlib import Path
from typing import Any

from tests.cli.commands import Rlaif, rlaif
from tests.run.builders import write_recipe

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
    plan = values("plan", recipe, "--prompts", 2)
    assert {*plan["total"]} == {"stage", "rows", "tokens", "hours", "money"}
    ended = rlaif("diff", "one", "none", "--json")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    # The next command prints for people again.
    assert "one" in rlaif("runs").out
