"""What a command or a flow begins with: a new run folder, or the one that is to go on."""

from pathlib import Path

from pipeline.config.paths import resolve_path
from pipeline.errors import StoreError
from pipeline.run.start import find_run, start_run
from pipeline.store import RunDir


def begin_run(recipe: str, run_id: str | None = None, resume: bool = False) -> RunDir:
    """A new run of `recipe`, or with `resume` the run of that id.

    Raises:
        UserError: the recipe is wrong, the id is taken, or there is nothing to resume.
    """
    if not resume:
        return start_run(resolve_path(Path(recipe)), run_id=run_id)
    if run_id is None:
        raise StoreError("nothing names the run to resume; give run_id, one of `rlaif runs`")
    return find_run(run_id)
