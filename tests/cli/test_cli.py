"""The command line: what it prints, its exit codes, and one line for every mistake of a user."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.paths import PROJECT_ROOT
from pipeline.store import RunLock
from tests.cli.commands import Ended, Rlaif

CONSTITUTION: dict[str, Any] = {
    "name": "short",
    "principles": [
        {
            "id": "p-1",
            "critique_request": "Name what is rude.",
            "revision_request": "Make it polite.",
            "comparison_request": "Which is more polite?",
        }
    ],
}


def write_recipe(folder: Path, **changes: Any) -> Path:
    """The smoke recipe with files of its own; `changes` replace top-level keys."""
    recipe = yaml.safe_load((PROJECT_ROOT / "flows/configs/smoke.yaml").read_text())
    constitution = folder / "constitution.yaml"
    constitution.write_text(yaml.safe_dump(CONSTITUTION))
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"q {i}?"}) + "\n" for i in range(8)))
    recipe |= {"constitution": str(constitution), "prompts": {"train": [str(prompts)]}}
    recipe["policy"]["args"]["constitution"] = str(constitution)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe | changes))
    return path


def assert_one_line(ended: Ended, pattern: str, tmp_path: Path) -> None:
    """Exit code 2, one line that matches, and nothing written."""
    assert ended.code == 2, ended
    assert len(ended.err.splitlines()) == 1 and "Traceback" not in ended.err, ended.err
    assert ended.err.startswith("rlaif: ")
    assert re.search(pattern, ended.err), ended.err
    assert not list((tmp_path / "outputs").rglob("*")), "something was written"


def test_run_prints_figures_and_report(rlaif: Rlaif, tmp_path: Path) -> None:
    ended = rlaif("run", write_recipe(tmp_path), "--no-prefect", "--run-id", "one")
    assert ended.code == 0, ended.err
    report = tmp_path / "outputs/runs/one/report.html"
    assert report.is_file() and f"report: {report}" in ended.out
    assert "preference/judge: 8 rows" in ended.out
    assert "one" in rlaif("runs").out and rlaif("verify", "one").code == 0
    assert rlaif("resume", "one", "--no-prefect").code == 0
    report.unlink()
    assert rlaif("report", "one").code == 0 and report.is_file()


def test_trace_shows_the_whole_origin(rlaif: Rlaif, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    rlaif("run", write_recipe(tmp_path), "--no-prefect", "--run-id", "one")
    pairs = pq.read_table(tmp_path / "outputs/runs/one/dataset/preference.parquet").to_pylist()
    ended = rlaif("trace", pairs[0]["row_id"])
    for part in ("preference", "judgment", "response", "prompt", "p-1", "prob_swapped", "seed"):
        assert part in ended.out, part
    missing = rlaif("trace", "0123456789abcdef")
    assert missing.code == 2 and "has a row 0123456789abcdef" in missing.err


def test_verify_finds_a_changed_byte(rlaif: Rlaif, tmp_path: Path) -> None:
    rlaif("run", write_recipe(tmp_path), "--no-prefect", "--run-id", "one")
    shard = tmp_path / "outputs/runs/one/preference/judge/shard-00000.parquet"
    shard.write_bytes(shard.read_bytes() + b"x")
    ended = rlaif("verify", "one")
    assert ended.code == 1 and "preference/judge/shard-00000.parquet: damaged" in ended.out


def test_version_is_that_of_the_project(rlaif: Rlaif) -> None:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    ended = rlaif("--version")
    assert ended.code == 0 and ended.out == f"rlaif {project['version']}\n"


def test_check_takes_overrides(rlaif: Rlaif) -> None:
    smoke = "flows/configs/smoke.yaml"
    assert rlaif("check", smoke, "--set", "name=other", "--set", "seed=3").out.count("other:") == 1
    ended = rlaif("check", smoke, "--set", "preference.sample.num_sample=3")
    assert (ended.code, "did you mean 'num_samples'?" in ended.err) == (2, True)
    ended = rlaif("check", "constitutions/open_assistant.yaml", "--set", "name=x")
    assert (ended.code, "is a constitution" in ended.err) == (2, True)


def test_check_knows_the_three_kinds(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    ended = rlaif("check", recipe, tmp_path / "constitution.yaml", "prompts/judge.jinja")
    assert ended.code == 0, ended.err
    for words in (f"OK: recipe {recipe}", "OK: constitution", "OK: template prompts/judge.jinja"):
        assert words in ended.out


def test_unknown_key_is_named(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, evaluatoin={})
    assert_one_line(
        rlaif("run", recipe), r"recipe.yaml, line \d+: 'evaluatoin' .* mean 'evaluation'", tmp_path
    )


def test_repeated_principle_is_named(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    twice = {**CONSTITUTION, "principles": CONSTITUTION["principles"] * 2}
    (tmp_path / "constitution.yaml").write_text(yaml.safe_dump(twice))
    assert_one_line(rlaif("run", recipe), "two principles have the id 'p-1'.*rename one", tmp_path)


@pytest.mark.parametrize("text", ["", "name: none\nprinciples: []\n"])
def test_empty_constitution_is_refused(rlaif: Rlaif, tmp_path: Path, text: str) -> None:
    recipe = write_recipe(tmp_path)
    (tmp_path / "constitution.yaml").write_text(text)
    assert_one_line(rlaif("run", recipe), "constitution.*(is empty|at least one)", tmp_path)


def test_misspelt_variable_is_named(rlaif: Rlaif, tmp_path: Path) -> None:
    template = tmp_path / "judge.jinja"
    template.write_text("{{ conversation }} {{ slot_a }} {{ slot_c }} {{ principle.id }}")
    recipe = write_recipe(tmp_path, templates={"judge": str(template)})
    assert_one_line(rlaif("run", recipe), "uses 'slot_c'.*slot_b", tmp_path)


def test_broken_prompt_line_is_numbered(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    with (tmp_path / "prompts.jsonl").open("a") as stream:
        stream.write('{"prompt": "never closed\n')
    assert_one_line(rlaif("run", recipe), r"prompts.jsonl, line 9\b", tmp_path)


def write_model(folder: Path) -> Path:
    """The pocket model without its chat template."""
    shutil.copytree(PROJECT_ROOT / "models/pocket", folder, ignore=lambda *_: ["labeler"])
    (folder / "chat_template.jinja").unlink()
    return folder


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"model": "no/such/model/folder"}, "model folder 'no/such/model/folder' does not exist"),
        ({}, "has no chat template.*chat_template"),
        ({"device": "cuda"}, "asks for `device: cuda`"),
    ],
)
def test_model_mistakes_are_found_first(
    rlaif: Rlaif,
    tmp_path: Path,
    change: dict[str, str],
    pattern: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    model = write_model(tmp_path / "model")
    recipe = write_recipe(tmp_path, policy={"type": "vllm", "model": str(model), **change})
    assert_one_line(rlaif("run", recipe), pattern, tmp_path)


def test_second_run_in_one_folder_is_refused(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    assert rlaif("run", recipe, "--no-prefect", "--run-id", "one").code == 0
    again = rlaif("run", recipe, "--no-prefect", "--run-id", "one")
    assert again.code == 2 and "`rlaif resume one` continues it" in again.err
    with RunLock(tmp_path / "outputs/runs/one"):
        both = rlaif("resume", "one", "--no-prefect")
    assert both.code == 2 and "is in use by process" in both.err
    assert len(both.err.splitlines()) == len(again.err.splitlines()) == 1


def test_taken_port_is_named(rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("RLAIF_PREFECT_PORT", str(port))
        ended = rlaif("run", write_recipe(tmp_path))
    assert_one_line(ended, f"port {port} .* in use by another program; end that", tmp_path)


def test_full_disk_keeps_what_is_done(
    rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path)
    calls: list[int] = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 25:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        ended = rlaif("run", recipe, "--no-prefect", "--run-id", "full")
    assert ended.code == 2 and len(ended.err.splitlines()) == 1
    assert re.search("no space left.*free some disk space, then `rlaif resume`", ended.err)
    assert not list((tmp_path / "outputs").rglob("*.tmp"))
    assert rlaif("resume", "full", "--no-prefect").code == 0
    assert rlaif("verify", "full").code == 0


def test_failing_model_stops_the_run_early(rlaif: Rlaif, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path,
        execution={"max_failed_share": 0.0, "retries": 0},
        supervised={"sample": {"max_tokens": 5000}},
    )
    ended = rlaif("run", recipe, "--no-prefect")
    assert ended.code == 1 and len(ended.err.splitlines()) == 1
    assert "rows failed" in ended.err and "`rlaif resume`" in ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_run_says_how_to_go_on(
    rlaif: Rlaif, tmp_path: Path, number: signal.Signals
) -> None:
    recipe = write_recipe(tmp_path)
    slow = yaml.safe_load(recipe.read_text())
    slow["policy"]["args"]["latency_s"] = 60.0
    recipe.write_text(yaml.safe_dump(slow))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "run", recipe, "--no-prefect", "--run-id", "one"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT_ROOT,
        # Tests that run in a background job inherit an ignored SIGINT; a person's Ctrl-C is not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    shards = tmp_path / "outputs/runs/one/prompts/complete.json"
    while not shards.exists() and process.poll() is None:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err == "stopped; `rlaif resume one` continues from here\n"
    assert rlaif("verify", "one").code == 0


def test_import_stays_light() -> None:
    code = (
        "import sys, pipeline, pipeline.cli; print(sorted({'torch', 'vllm', 'trl', 'datasets', "
        "'transformers', 'prefect', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
