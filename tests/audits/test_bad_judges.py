"""An audit must be able to say no: a bad judge is stopped before the export and keeps its rows."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.data.verify import check_files, verify
from pipeline.errors import EXIT_AUDIT, AuditError
from pipeline.run.context import open_context
from pipeline.run.phases import run_all
from pipeline.run.start import start_run
from pipeline.stages.runner import Progress
from pipeline.store import RunDir
from pipeline.store.shards import stage_manifests
from tests.audits.bad_judges import audited_run, recipe, started
from tests.run.builders import stored_json


def failed(run: RunDir) -> set[str]:
    """Checks that failed, as audit.json says."""
    audit = stored_json(run.root / "preference/audit.json")
    assert audit["passed"] is False
    return {
        f["name"] for judge in audit["judges"] for f in judge["findings"] if f["status"] == "failed"
    }


async def refused(folder: Path, judge: str, /, **preference: Any) -> tuple[RunDir, AuditError]:
    run = started(folder, judge, **preference)
    with pytest.raises(AuditError) as caught:
        await run_all(open_context(run))
    return run, caught.value


@pytest.mark.parametrize(
    "judge, checks",
    [
        ("always_a", {"identical", "slot_share", "order_disagreement", "known"}),
        ("prose", {"unparsed", "canary_unparsed", "off_option", "known"}),
        ("thinks", {"off_option"}),
        ("shy", {"canary_unparsed", "known"}),
        ("longer", {"padded", "known"}),
        ("obeys", {"injected"}),
        ("inverted", {"known"}),
    ],
)
async def test_bad_judge_is_stopped(tmp_path: Path, judge: str, checks: set[str]) -> None:
    # Each verdict counts, however little the judge meant to give one.
    run, error = await refused(tmp_path, judge, judge={"min_option_mass": 0.0})
    assert failed(run) == checks
    assert error.exit_code == EXIT_AUDIT == 3
    assert not (run.dataset / "preference.parquet").exists()
    # Everything that was paid for is there, and says so.
    for folder in ("preference/judge", "preference/canary", "preference/pair"):
        assert len(stage_manifests(run.root, folder)) == 6, folder
    assert verify(run) == [] and check_files(run).uncovered == []
    assert run.info()["status"] == "audit failed" and run.report.is_file()


@pytest.mark.parametrize(
    "judge, checks",
    [
        ("always_a", {"identical", "slot_share", "order_disagreement", "known"}),
        ("longer", {"padded"}),
        ("obeys", {"injected"}),
        ("inverted", {"known"}),
        ("fickle", {"swapped"}),
        ("thinks", {"off_option"}),
        ("shy", {"canary_unparsed"}),
        ("prose", {"unparsed"}),
    ],
)
async def test_clamp_hides_no_bad_judge(tmp_path: Path, judge: str, checks: set[str]) -> None:
    """No label is further than 0.1 from 0.5 then, with or without the fault."""
    run, _ = await refused(tmp_path, judge, judge={"chain_of_thought": {}})
    assert checks <= failed(run)


async def test_clamp_leaves_made_up_injections(tmp_path: Path) -> None:
    """They are made from comparisons that are clear before the clamp: after it none is."""
    audit = {"enabled": True, "canaries": None, "per_principle": False}
    run = await audited_run(tmp_path, "honest", audit=audit, judge={"chain_of_thought": {}})
    found = stored_json(run.root / "preference/audit.json")["judges"][0]["findings"]
    assert {f["name"] for f in found if f["status"] == "skipped"} == {"known"}


async def test_message_says_what_and_where(tmp_path: Path) -> None:
    run, error = await refused(tmp_path, "obeys")
    text = str(error)
    assert "\n" not in text
    assert "injected of preference/judge is 1.000 (" in text and "needed max 0.1" in text
    assert "`rlaif audit r1`" in text and str(run.root / "preference/audit.json") in text


@pytest.mark.parametrize("way", [{}, {"chain_of_thought": {}}])
async def test_honest_judge_passes(tmp_path: Path, way: dict[str, Any]) -> None:
    run = await audited_run(tmp_path, "honest", judge=way)
    audit = stored_json(run.root / "preference/audit.json")
    statuses = {f["name"]: f["status"] for f in audit["judges"][0]["findings"]}
    assert audit["passed"] is True and set(statuses.values()) == {"passed"}
    assert (run.dataset / "preference.parquet").is_file()
    assert run.info()["status"] == "finished"


async def test_resume_gives_the_same_answer_for_free(tmp_path: Path) -> None:
    run, first = await refused(tmp_path, "always_a")

    def state() -> dict[str, str]:
        return {
            str(p): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in (run.root / "preference").rglob("*")
            if p.is_file()
        }

    before = state()
    with pytest.raises(AuditError) as caught:
        await run_all(open_context(run))
    assert str(caught.value) == str(first) and state() == before


async def test_few_rows_skip_and_say_so(tmp_path: Path) -> None:
    audit = {"enabled": True, "canaries": None, "min_rows": 1000}
    run = await audited_run(tmp_path, "always_a", audit=audit)
    found = stored_json(run.root / "preference/audit.json")
    assert {f["status"] for judge in found["judges"] for f in judge["findings"]} == {"skipped"}
    assert any("no known answer was tested" in note for note in found["notes"])


async def test_one_shard_is_audited_too(tmp_path: Path) -> None:
    """24 prompts in one shard: 20 rows of each kind, and a third more for what `injected` leaves
    out.
    """
    path = recipe(tmp_path / "in", "obeys")
    path.write_text(path.read_text().replace("shard_size: 4", "shard_size: 64"))
    run = start_run(path, run_id="r1", runs_root_folder=tmp_path / "out")
    with pytest.raises(AuditError, match=r"injected of preference/judge is 1.000"):
        await run_all(open_context(run))
    found = stored_json(run.root / "preference/audit.json")["judges"][0]
    assert {f["status"] for f in found["findings"]} == {"passed", "failed"}
    assert found["figures"][""]["known"]["n"] == 27


async def test_no_canary_check_is_noted(tmp_path: Path) -> None:
    audit = {"enabled": True, "canaries": None, "canaries_per_shard": 0}
    run = await audited_run(tmp_path, "honest", audit=audit)
    note = stored_json(run.root / "preference/audit.json")["notes"]
    assert any(
        "no canary check of preference/judge was possible (0 rows, and at least 20" in text
        and "canaries_per_shard" in text
        for text in note
    )


async def test_other_thresholds_let_a_new_run_pass(tmp_path: Path) -> None:
    audit = {
        "enabled": True,
        "canaries": None,
        "max_identical": None,
        "slot_share": None,
        "max_order_disagreement": None,
    }
    run = await audited_run(tmp_path, "always_a", audit=audit)
    assert (run.dataset / "preference.parquet").is_file()


async def test_each_judge_of_a_panel_is_audited(tmp_path: Path) -> None:
    path = started(tmp_path, "honest").recipe
    text = path.read_text() + (
        "panel:\n- {type: scripted, script: 'tests.audits.bad_judges:make_engine', "
        "args: {judge: obeys}}\n"
    )
    path.write_text(text)
    run = RunDir(path.parent)
    with pytest.raises(AuditError, match="injected of preference/judge-2 is"):
        await run_all(open_context(run))
    audit = stored_json(run.root / "preference/audit.json")
    assert [judge["folder"] for judge in audit["judges"]] == [
        "preference/judge",
        "preference/judge-2",
    ]
    assert all(f["status"] == "passed" for f in audit["judges"][0]["findings"])
    # Both err alike on every known answer, so only their labels can tell.
    assert any("worth 1.0 independent ones: their labels of" in note for note in audit["notes"])


async def test_principle_alone_can_fail(tmp_path: Path) -> None:
    audit = {"enabled": True, "canaries": None, "max_order_disagreement": 0.5, "min_rows": 5}
    run, error = await refused(tmp_path, "always_a", audit=audit)
    found = stored_json(run.root / "preference/audit.json")["judges"][0]["findings"]
    assert {f["scope"] for f in found if f["status"] == "failed"} >= {"", "p-0", "p-1", "p-2"}
    assert "order_disagreement of preference/judge" in str(error) or "identical of" in str(error)


async def test_self_preference_is_noted(tmp_path: Path) -> None:
    told: list[str] = []
    run = started(tmp_path, "honest")
    ctx = open_context(run, Listener(told))
    await run_all(ctx)
    audit = stored_json(run.root / "preference/audit.json")
    assert audit["judges"][0]["judges_itself"] is True
    assert any("is the model that wrote the responses" in note for note in audit["notes"])
    assert told == audit["notes"]


async def test_collapse_stops_the_export_too(tmp_path: Path) -> None:
    run, error = await refused(
        tmp_path,
        "honest",
        audit={"enabled": False},
        collapse={"min_prompts": 2, "max_closing_share": 0.01},
    )
    assert "of the chosen texts is" in str(error)
    audit = stored_json(run.root / "preference/audit.json")
    assert audit["judges"] == [] and audit["collapse"]["passed"] is False
    assert not (run.dataset / "preference.parquet").exists()


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """Exit code of `rlaif`."""
    monkeypatch.setattr(sys, "argv", ["rlaif", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def test_commands_say_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = started(tmp_path, "always_a")
    assert command(monkeypatch, "resume", str(run.root), "--no-prefect") == 3
    assert capsys.readouterr().err.startswith("rlaif: the audit of run r1 failed: ")
    assert command(monkeypatch, "audit", str(run.root)) == 3
    shown = capsys.readouterr().out
    assert "checks failed" in shown and "slot_share" in shown and "p-1" in shown


def test_command_without_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = started(tmp_path, "honest")
    assert command(monkeypatch, "audit", str(run.root)) == 2
    assert "has no labels yet" in capsys.readouterr().err


class Listener(Progress):
    """Keeps remarks, and ignores everything else."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    def note(self, text: str) -> None:
        self._notes.append(text)
