"""The data set of a run on the Hugging Face Hub, or on a server that speaks its API (HF_ENDPOINT).

In:  a finished data set; the token of `hf auth login` or HF_TOKEN, which is written nowhere
Out: one commit with the folder dataset/ as it is: Parquet files, card, recipe, constitution

The commit names the one before it, so that of two pushes at once the second is refused. A push that
failed has changed no file there; repeated, it sends again only what the server does not have.

Does not: fill in the license of the card, or make a private repository public.
"""

import os
from collections.abc import Callable

from pipeline.data.dataset import load_dataset, set_path
from pipeline.errors import AuditError, DataError, MachineError, UserError
from pipeline.store import RunDir


def push_dataset(run: RunDir, repository: str, say: Callable[[str], None]) -> str:
    """Push the data set; returns the address of the commit. A new repository is private.

    Args:
        repository: such as `my-org/polite-pairs`, or a name below the account of the token.

    Raises:
        AuditError: the labels failed their audit, so there is no data set.
        DataError: the run has no data set.
        StoreError: a file of it is damaged.
        UserError: the server refused, or there is no token.
        MachineError: the server cannot be reached, or failed.
    """
    _require(run)
    from httpx2 import HTTPError, InvalidURL
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.utils import disable_progress_bars

    token = get_token()
    if token is None:
        raise UserError("there is no token of the Hub; set HF_TOKEN, or give `hf auth login`")
    disable_progress_bars()
    # Another way of sending large files, with a cache of its own, which few servers speak. Its
    # environment variable is read at the first import, which may have been long ago.
    constants.HF_HUB_DISABLE_XET = True
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    files = sorted(path for path in run.dataset.iterdir() if path.is_file())
    operations = [CommitOperationAdd(path.name, path) for path in files]
    target = f"{repository} at {api.endpoint}"
    again = "nothing of it has changed; give the same command again"
    try:
        created = api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
        parent = api.repo_info(created.repo_id, repo_type="dataset").sha
        say(f"pushing {len(files)} files to {target}")
        commit = api.create_commit(
            created.repo_id,
            operations,
            commit_message=f"Data set of run {run.run_id}",
            repo_type="dataset",
            parent_commit=parent,
        )
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = (error.server_message or "no reason is given").replace(token, "***")[:400]
        words = f"{target} answered {status}: {reason}"
        if status >= 500:
            raise MachineError(f"{words}; {again}") from None
        if status in (409, 412):
            raise UserError(f"{words}; another push came first: look at it, then repeat") from None
        raise UserError(f"{words}; check the name, and what HF_TOKEN may write") from None
    except (HFValidationError, ValueError) as error:
        raise UserError(f"{repository} cannot be pushed to: {error}") from None
    except RuntimeError as error:
        # The library's error for a large file that could not be sent.
        if not isinstance(error.__cause__, HTTPError):
            raise
        raise MachineError(f"{target}: {error} {again.capitalize()}") from None
    except (HTTPError, InvalidURL, OfflineModeIsEnabled) as error:
        raise MachineError(f"{target} cannot be reached ({error}); {again}") from None
    return str(commit.commit_url)


def _require(run: RunDir) -> None:
    """Raises unless the run has a data set whose files are as they were written."""
    manifest = load_dataset(run)
    if run.info().get("status") == "audit failed":
        raise AuditError(
            f"the labels of run {run.run_id} failed their audit, so nothing is pushed; "
            f"`rlaif audit {run.run_id}` shows every check"
        )
    if manifest is None or "preference" not in manifest.sets:
        raise DataError(
            f"run {run.run_id} has no preference set to push; `rlaif resume {run.run_id}` finishes "
            "a run that was stopped"
        )
    for name in manifest.sets:
        set_path(run, name)
