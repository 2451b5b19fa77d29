"""`rlaif review` from its address to its last line, and its labels as known labels of a judge."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx

from pipeline.review.server import TOKEN_HEADER
from tests.cli.commands import Rlaif
from tests.judge_eval.builders import write_judge_recipe
from tests.judge_eval.command_runs import assert_one_line, rows_of
from tests.review.builders import answer_for, labeled_run, open_review


def test_review_is_served_until_it_is_stopped(tmp_path: Path) -> None:
    run = labeled_run(tmp_path / "runs/one", 12)
    command = [sys.executable, "-m", "pipeline.cli", "review", str(run.root), "--pairs", "6"]
    environment = {**os.environ, "RLAIF_OUTPUTS": str(tmp_path)}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        # A shell starts what it runs in the background with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        match = re.fullmatch(r"review 6 pairs at (http://127\.0\.0\.1:\d+)/#(\S+)\n", first)
        assert match is not None, first
        headers = {TOKEN_HEADER: match[2]}
        body = {"reviewer": "Ada"}
        shown = httpx.post(f"{match[1]}/next", json=body, headers=headers).json()["pair"]
        answer = {**body, "pair": shown["id"], "answer": "left", "seconds": 1}
        assert httpx.post(f"{match[1]}/label", json=answer, headers=headers).status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Ada: 1 labels" in out and "sources.yaml" in out
    lines = (tmp_path / f"review/{run.run_id}/random.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["annotator"] == "Ada"


def test_labels_measure_a_judge_under_the_principles_that_people_saw(
    rlaif: Rlaif, tmp_path: Path
) -> None:
    review, _ = open_review(labeled_run(tmp_path / "run", principle="p-1"), tmp_path / "labels")
    answer_for(review, "Ada", "better")
    known = tmp_path / "known.json"
    recipe = write_judge_recipe(tmp_path / "r")
    ended = rlaif(
        *("judge-eval", "--sources", tmp_path / "labels/random.yaml", "--recipe", recipe),
        *("--name", "e", "--known-labels", known),
    )
    assert ended.code == 0, ended.err
    labels = json.loads(known.read_text())["labels"]
    assert len(labels) == 10 and all(label["label"] > 0.5 for label in labels)
    assert {row.principle_id for row in rows_of(tmp_path)} == {"p-1"}


def test_port_of_another_program_is_one_line(rlaif: Rlaif, tmp_path: Path) -> None:
    run = labeled_run(tmp_path / "runs/one", 12)
    with socket.create_server(("127.0.0.1", 0)) as other:
        ended = rlaif("review", run.root, "--port", other.getsockname()[1])
    assert ended.code == 2 and len(ended.err.splitlines()) == 1
    assert "cannot be listened on (Address already in use); give another --port" in ended.err


def test_run_that_cannot_be_reviewed_is_one_line(rlaif: Rlaif, tmp_path: Path) -> None:
    assert_one_line(rlaif("review", "nowhere"), "no run|does not exist|not a run", tmp_path)
