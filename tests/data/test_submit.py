"""Fine-tuning jobs, against a server on loopback that speaks the API and can fail anywhere."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.engines import OpenAIConfig
from pipeline.constitution import load_constitution
from pipeline.data.export import export_preference
from pipeline.data.submit import Submission, cancel, submit, watch
from pipeline.errors import MachineError, TrainingError, UserError
from pipeline.store import RunDir, read_json
from tests.cli.commands import Rlaif
from tests.data.loopback import serve_json
from tests.judge_eval.command_runs import assert_one_line
from tests.run.builders import CONFIG, whole_run

KEY = "sk-test-0123456789"
Ask = tuple[str, str]


class Server:
    """Files and jobs of a fine-tuning service; `fail` answers requests with 500 instead."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Ask] = []
        self.files: list[bytes] = []
        self.jobs: list[dict[str, Any]] = []
        self.fail: list[Ask] = []
        """Requests to answer with 500, each once; what they make is made all the same."""
        self.end = "succeeded"

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, Any]:
        """Status and JSON."""
        self.asked.append((method, path))
        if headers["Authorization"] != f"Bearer {KEY}":
            return 401, {"error": {"message": f"bad key {headers['Authorization']}"}}
        made = self._make(method, path, body)
        if (method, path) in self.fail:
            self.fail.remove((method, path))
            return 500, {"error": {"message": "the server had an error"}}
        return made

    def _make(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if (method, path) == ("POST", "/v1/files"):
            self.files.append(body)
            return 200, {"id": f"file-{len(self.files)}"}
        if (method, path) == ("POST", "/v1/fine_tuning/jobs"):
            request = json.loads(body)
            if request["model"] == "unknown":
                return 400, {"error": {"message": "no such model"}}
            number = len(self.jobs) + 1
            self.jobs.append({"id": f"ftjob-{number}", "status": "queued", "asked": 0, **request})
            return 200, self.jobs[-1]
        if path == "/v1/fine_tuning/jobs":
            return 200, {"data": self.jobs[::-1]}
        job = next(job for job in self.jobs if job["id"] in path)
        if path.endswith("/cancel"):
            job["status"] = "cancelled"
        elif job["status"] not in ("cancelled", self.end):
            job["asked"] += 1
            job["status"] = ("running", "running", self.end)[min(job["asked"], 3) - 1]
        if job["status"] == "succeeded":
            job["fine_tuned_model"] = "ft:model"
        if job["status"] == "failed":
            job["error"] = {"message": "the file has 2 pairs,\nbut 10 are needed"}
        return 200, job


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    service = Server()
    with serve_json(service.answer) as address:
        service.url = f"{address}/v1"
        monkeypatch.setenv("TUNING_KEY", KEY)
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # loopback needs none
        yield service


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = asyncio.run(whole_run(tmp_path_factory.mktemp("submit") / "runs/one"))
    export_preference(run, CONFIG, load_constitution(run.constitution))
    return run


def wanted(server: Server, model: str = "m", **hyperparameters: float) -> Submission:
    config = OpenAIConfig(type="openai", base_url=server.url, model=model, api_key_env="TUNING_KEY")
    return Submission(config, {"beta": 0.2, **hyperparameters})


def follow(submission: Submission, record: Path, lines: list[str] | None = None) -> str:
    return watch(submission, record, (lines or []).append, wait_s=0.001)


def test_job_is_started_and_watched_to_its_end(server: Server, run: RunDir, tmp_path: Path) -> None:
    record, lines = tmp_path / "one.json", list[str]()
    submission = wanted(server, n_epochs=2, batch_size=8)
    known, is_new = submit(run, submission, record, lines.append)
    assert is_new and known["job"] == "ftjob-1"
    assert watch(submission, record, lines.append, wait_s=0.001) == "ft:model"
    (job,) = server.jobs
    assert job["method"] == {
        "type": "dpo",
        "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 2, "batch_size": 8}},
    }
    assert (job["model"], job["training_file"]) == ("m", "file-1")
    assert b'name="purpose"\r\n\r\nfine-tune' in server.files[0]
    assert b"preferred_output" in server.files[0]
    assert lines[1:] == ["ftjob-1: running", "ftjob-1: succeeded"]
    stored = read_json(record) or {}
    assert (stored["status"], stored["model"]) == ("succeeded", "ft:model")
    assert KEY not in record.read_text()


def test_error_after_the_upload_costs_no_second_upload(
    server: Server, run: RunDir, tmp_path: Path
) -> None:
    """The job was made although its answer was 500: the next call finds it and makes no other."""
    record, submission = tmp_path / "one.json", wanted(server)
    server.fail.append(("POST", "/v1/fine_tuning/jobs"))
    with pytest.raises(MachineError, match=r"answered 500 .* give the same command again"):
        submit(run, submission, record, print)
    assert (read_json(record) or {})["file"] == "file-1"
    known, _ = submit(run, submission, record, print)
    assert known["job"] == "ftjob-1" and (len(server.files), len(server.jobs)) == (1, 1)
    assert follow(submission, record) == "ft:model"


def test_error_before_the_job_was_made_makes_it_once(
    server: Server, run: RunDir, tmp_path: Path
) -> None:
    record, submission = tmp_path / "one.json", wanted(server)
    server.fail.append(("GET", "/v1/fine_tuning/jobs"))
    with pytest.raises(MachineError, match="answered 500"):
        submit(run, submission, record, print)
    submit(run, submission, record, print)
    assert (len(server.files), len(server.jobs)) == (1, 1)


def test_same_command_again_makes_nothing(server: Server, run: RunDir, tmp_path: Path) -> None:
    record, submission = tmp_path / "one.json", wanted(server)
    submit(run, submission, record, print)
    known, is_new = submit(run, submission, record, print)
    assert not is_new and known["job"] == "ftjob-1" and len(server.jobs) == 1


def test_other_settings_wait_until_the_job_has_ended(
    server: Server, run: RunDir, tmp_path: Path
) -> None:
    """The new job gets a file of its own, so that neither is taken for the other."""
    record = tmp_path / "one.json"
    submit(run, wanted(server), record, print)
    with pytest.raises(UserError, match="has job ftjob-1 with other settings or pairs"):
        submit(run, wanted(server, beta=0.5), record, print)
    assert cancel(run, wanted(server), record) == "cancelled"
    known, is_new = submit(run, wanted(server, beta=0.5), record, print)
    assert is_new and known["job"] == "ftjob-2"
    assert server.jobs[1]["method"]["dpo"]["hyperparameters"]["beta"] == 0.5


def test_a_lost_job_is_not_taken_for_one_with_other_settings(
    server: Server, run: RunDir, tmp_path: Path
) -> None:
    """The answer to the first job was lost, so only the server knows it."""
    record = tmp_path / "one.json"
    server.fail.append(("POST", "/v1/fine_tuning/jobs"))
    with pytest.raises(MachineError, match="answered 500"):
        submit(run, wanted(server), record, print)
    with pytest.raises(UserError, match="has job ftjob-1 with other settings or pairs"):
        submit(run, wanted(server, beta=0.5), record, print)
    assert cancel(run, wanted(server), record) == "cancelled"
    submit(run, wanted(server, beta=0.5), record, print)
    betas = [job["method"]["dpo"]["hyperparameters"]["beta"] for job in server.jobs]
    assert betas == [0.2, 0.5]


def test_failed_job_says_why(server: Server, run: RunDir, tmp_path: Path) -> None:
    record, submission = tmp_path / "one.json", wanted(server)
    server.end = "failed"
    submit(run, submission, record, print)
    with pytest.raises(TrainingError, match="ftjob-1 failed: the file has 2 pairs, but 10"):
        follow(submission, record)


def test_watching_outlives_errors_but_not_silence(
    server: Server, run: RunDir, tmp_path: Path
) -> None:
    record, submission = tmp_path / "one.json", wanted(server)
    submit(run, submission, record, print)
    server.fail += [("GET", "/v1/fine_tuning/jobs/ftjob-1")] * 3
    assert follow(submission, record) == "ft:model"
    server.fail += [("GET", "/v1/fine_tuning/jobs/ftjob-1")] * 5
    with pytest.raises(MachineError, match="job ftjob-1 continues"):
        follow(submission, record)


def test_refusal_is_told_without_the_key(
    server: Server, run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="400 to POST /fine_tuning/jobs: no such model"):
        submit(run, wanted(server, "unknown"), tmp_path / "one.json", print)
    monkeypatch.setenv("TUNING_KEY", "sk-wrong-987654")
    with pytest.raises(UserError, match=r"401 .*bad key Bearer \*\*\*$"):
        submit(run, wanted(server), tmp_path / "two.json", print)


def test_cancel_without_a_job_is_refused(server: Server, run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no fine-tuning job to cancel"):
        cancel(run, wanted(server), tmp_path / "one.json")


def test_command_ends_with_the_model(server: Server, run: RunDir, rlaif: Rlaif) -> None:
    server.end = "running"  # it ends when it is canceled
    options = ("--model", "m", "--base-url", server.url, "--api-key-env", "TUNING_KEY")
    assert rlaif("submit", run.root, *options, "--cancel").code == 2
    server.end = "succeeded"
    server.jobs.append({"id": "ftjob-1", "status": "succeeded", "training_file": "file-1"})
    ended = rlaif("submit", run.root, *options)
    assert ended.code == 0, ended.err
    assert "trained model: ft:model" in ended.out
    assert json.loads(rlaif("submit", run.root, *options, "--json").out) == {
        "run": run.run_id,
        "job": "ftjob-1",
        "status": "succeeded",
        "model": "ft:model",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", ""], "--model: "),
        (["--model", "m", "--base-url", "ftp://x"], "--base-url: "),
        (["--model", "m", "--base-url", "https://u:p@x/v1"], "--base-url: .*user part"),
        (["--model", "m", "--api-key-env", "a b"], "--api-key-env: "),
        (["--model", "m", "--api-key-env", "NOT_SET_HERE"], "NOT_SET_HERE is not set"),
        (["--model", "m", "--beta", "3"], "beta"),
    ],
)
def test_option_that_cannot_be_is_one_line(
    run: RunDir, rlaif: Rlaif, tmp_path: Path, options: list[str], message: str
) -> None:
    assert_one_line(rlaif("submit", run.root, *options), message, tmp_path)
