"""A DPO job at OpenAI, or at a server that speaks its fine-tuning API, on the pairs of a run.

In:  a run with a preference set; address, model and hyperparameters
Out: outputs/submit/RUN.json, which remembers the upload and the job before anything else happens

    POST /files (purpose fine-tune) -> POST /fine_tuning/jobs (method dpo)
    GET /fine_tuning/jobs/ID until it ends; POST /fine_tuning/jobs/ID/cancel

A request that makes something is never repeated blindly. The pairs are uploaded once, however often
the command is given, and before a job is made, the server is asked whether it has one on that file:
an error after the upload, or a lost answer, leads to no second upload and no second bill.

Does not: measure the model that comes out; name it in a recipe for that.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from pipeline.config.engines import OpenAIConfig
from pipeline.data.json_lines import export_lines
from pipeline.engines.openai import is_loopback, named_variables, read_key
from pipeline.errors import MachineError, StoreError, TrainingError, UserError
from pipeline.ids import file_hash
from pipeline.store import RunDir, read_json, write_json

ENDED = ("succeeded", "failed", "cancelled")
TRIES = 5
"""Questions about a job without an answer, one after another, after which watching ends."""
TIMEOUT = httpx.Timeout(30.0, read=600.0, write=600.0)


@dataclass(frozen=True)
class Submission:
    """What to train, where, and how."""

    server: OpenAIConfig
    """Address, model and the variable with the key."""
    hyperparameters: dict[str, float | int]
    """`beta`, and `n_epochs` and `batch_size` where the server is not to choose them."""


class FineTuning:
    """The API of one server."""

    def __init__(self, server: OpenAIConfig) -> None:
        """Raises ConfigError when the key's variable is not set, or a proxy cannot be used."""
        self._key = read_key(server)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        with named_variables(server.base_url):
            self._client = httpx.Client(
                base_url=server.base_url,
                headers=headers,
                timeout=TIMEOUT,
                trust_env=not is_loopback(server.base_url),
            )

    def __enter__(self) -> "FineTuning":
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """One request, not repeated.

        Raises:
            MachineError: no answer, or a server error: it may work later.
            UserError: the server refused; the message has its words, without the key.
        """
        try:
            response = self._client.request(method, path, **content)
            value = response.json() if response.content else {}
        except (httpx.HTTPError, ValueError) as error:
            raise MachineError(f"{self._where} gave no readable answer ({error})") from error
        if response.is_success and isinstance(value, dict):
            return value
        words = value.get("error") if isinstance(value, dict) else value
        text = str(words.get("message") if isinstance(words, dict) else words)[:400]
        text = text.replace(self._key, "***") if self._key else text
        problem = f"{self._where} answered {response.status_code} to {method} {path}: {text}"
        raise MachineError(problem) if response.status_code >= 500 else UserError(problem)

    @property
    def _where(self) -> str:
        return str(self._client.base_url).rstrip("/")


def submit(
    run: RunDir, submission: Submission, record: Path, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """Upload the pairs and start a job, or find the one that an earlier call started.

    Returns the record, and whether the job is new.

    Raises:
        UserError: no pairs, a wrong key, or a job of this run with other settings is not finished.
        MachineError: the server failed; the same command continues from where it was.
    """
    wanted = _settings(submission)
    with TemporaryDirectory() as folder, FineTuning(submission.server) as api:
        pairs = Path(folder) / "pairs.jsonl"
        exported = export_lines(run, pairs, "openai")
        wanted["data_sha256"] = file_hash(pairs)
        known = _read(record)
        if known.get("job") and known["settings"] != wanted:
            if known.get("status") not in ENDED:
                raise _other_job(run, known["job"])
            known = {}
        if known.get("job"):
            return known, False
        earlier = known.get("settings", wanted)
        # An uploaded file is of use to its own server, while the pairs are these.
        if any(earlier.get(key) != wanted[key] for key in ("data_sha256", "base_url")):
            known, earlier = {}, wanted
        if not known.get("file"):
            say(f"uploading {exported.lines:,} pairs to {submission.server.base_url}")
            with pairs.open("rb") as stream:
                name = f"{run.run_id}.jsonl"
                uploaded = _of_this_command(
                    api,
                    "/files",
                    data={"purpose": "fine-tune"},
                    files={"file": (name, stream, "application/jsonl")},
                )
            known, earlier = {"file": _id_of(uploaded), "settings": wanted}, wanted
            _write(record, known)
        job = _job_on(api, known["file"])
        if job is not None and earlier != wanted:
            _write(record, {**known, "job": _id_of(job), "status": job.get("status", "")})
            raise _other_job(run, _id_of(job))
        known = {"file": known["file"], "settings": wanted}
        if job is None:
            _write(record, known)
            body = {
                "model": submission.server.model,
                "training_file": known["file"],
                "suffix": run.run_id[:18],
                "method": {"type": "dpo", "dpo": {"hyperparameters": submission.hyperparameters}},
            }
            job = _of_this_command(api, "/fine_tuning/jobs", json=body)
        known |= {"job": _id_of(job), "status": job.get("status", "")}
        _write(record, known)
        return known, True


def watch(
    submission: Submission, record: Path, say: Callable[[str], None], *, wait_s: float = 10.0
) -> str:
    """Follow the job of a record until it ends; returns the name of the trained model.

    Raises:
        TrainingError: the job failed or was canceled.
        MachineError: the server stopped answering; the job continues.
    """
    known, shown, failures = _read(record), "", 0
    with FineTuning(submission.server) as api:
        while True:
            try:
                job, failures = api.ask("GET", f"/fine_tuning/jobs/{known['job']}"), 0
            except MachineError as error:
                failures += 1
                if failures == TRIES:
                    raise MachineError(
                        f"{error}; job {known['job']} continues, the same command watches it again"
                    ) from error
                time.sleep(wait_s)
                continue
            status = str(job.get("status", ""))
            if status != shown:
                say(f"{known['job']}: {status}")
                shown = status
                _write(record, known | {"status": status, "model": job.get("fine_tuned_model")})
            if status in ENDED:
                break
            time.sleep(wait_s)
    if status != "succeeded":
        words = (job.get("error") or {}).get("message") or "the server gives no reason"
        raise TrainingError(f"job {known['job']} {status}: {' '.join(str(words).split())[:400]}")
    return str(job.get("fine_tuned_model"))


def cancel(run: RunDir, submission: Submission, record: Path) -> str:
    """Cancel the job of a record; returns its status. Raises UserError without a job."""
    known = _read(record)
    if not known.get("job"):
        raise UserError(f"run {run.run_id} has no fine-tuning job to cancel")
    with FineTuning(submission.server) as api:
        job = api.ask("POST", f"/fine_tuning/jobs/{known['job']}/cancel")
    _write(record, known | {"status": job.get("status", "")})
    return str(job.get("status", ""))


def _settings(submission: Submission) -> dict[str, Any]:
    server = submission.server
    return {
        "base_url": server.base_url,
        "model": server.model,
        "hyperparameters": submission.hyperparameters,
    }


def _of_this_command(api: FineTuning, path: str, **content: Any) -> dict[str, Any]:
    """A request that makes something; its failure says how to go on."""
    try:
        return api.ask("POST", path, **content)
    except MachineError as error:
        raise MachineError(
            f"{error}; nothing is lost: give the same command again, which continues from there"
        ) from error


def _job_on(api: FineTuning, file: str) -> dict[str, Any] | None:
    """A job on an uploaded file that has not failed, as a lost answer to its making leaves it."""
    listed = api.ask("GET", "/fine_tuning/jobs", params={"limit": 100}).get("data") or []
    jobs = [job for job in listed if isinstance(job, dict) and job.get("training_file") == file]
    return next((job for job in jobs if job.get("status") not in ("failed", "cancelled")), None)


def _other_job(run: RunDir, job: str) -> UserError:
    return UserError(
        f"run {run.run_id} has job {job} with other settings or pairs; watch it with those, or "
        "cancel it first with --cancel"
    )


def _id_of(made: dict[str, Any]) -> str:
    if not isinstance(made.get("id"), str):
        raise MachineError(f"the server answered without an id: {json.dumps(made)[:200]}")
    return str(made["id"])


def _read(record: Path) -> dict[str, Any]:
    known = read_json(record) or {}
    if known and not (isinstance(known.get("settings"), dict) and known.get("file")):
        raise StoreError(f"{record} is damaged; remove it to submit the run again")
    return known


def _write(record: Path, known: dict[str, Any]) -> None:
    os.makedirs(record.parent, exist_ok=True)
    write_json(record, known)
