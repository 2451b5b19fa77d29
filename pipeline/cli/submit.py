"""The command `submit`: a DPO job elsewhere on the pairs of a run."""

from pathlib import Path

from pydantic import ValidationError

from pipeline.cli.terminal import print_json, say
from pipeline.config.engines import OpenAIConfig
from pipeline.data.submit import Submission, submit, watch
from pipeline.data.submit import cancel as cancel_job
from pipeline.errors import ConfigError
from pipeline.run.start import find_run, runs_root
from pipeline.store import RunDir, read_json

SHOWN = ("job", "status", "model")
"""What `--json` has of a job, besides its run."""


def submit_run(
    name: str,
    model: str,
    base_url: str,
    api_key_env: str,
    hyperparameters: dict[str, float | int | None],
    *,
    cancel: bool,
    as_json: bool = False,
) -> None:
    """Start or find the job of a run and watch it; Ctrl-C ends the watching alone.

    Raises:
        UserError: an option cannot be used, or the server refused.
        TrainingError: the job failed.
    """
    run = find_run(name)
    try:
        server = OpenAIConfig(
            type="openai", base_url=base_url, model=model, api_key_env=api_key_env or None
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = {"base_url": "--base-url", "model": "--model"}.get(
            str(first["loc"][0]), "--api-key-env"
        )
        raise ConfigError(f"{option}: {first['msg'].removeprefix('Value error, ')}") from None
    values = {key: value for key, value in hyperparameters.items() if value is not None}
    submission = Submission(server, values)
    record = runs_root().parent / "submit" / f"{run.run_id}.json"
    if cancel:
        say(f"job of {run.run_id}: {cancel_job(run, submission, record)}")
    else:
        _start_and_watch(run, submission, record)
    if as_json:
        known = read_json(record) or {}
        print_json({"run": run.run_id, **{key: known.get(key) for key in SHOWN}})


def _start_and_watch(run: RunDir, submission: Submission, record: Path) -> None:
    known, is_new = submit(run, submission, record, say)
    say(f"{'started' if is_new else 'found'} job {known['job']}; Ctrl-C ends the watching only")
    try:
        trained = watch(submission, record, say)
    except KeyboardInterrupt:
        say("the job continues; the same command watches it again, and --cancel ends it")
        return
    say(f"trained model: {trained}")
