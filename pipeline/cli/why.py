"""The command `why`: rows that did not come to be, with their reasons; and one of them, whole."""

from collections.abc import Iterator
from typing import NamedTuple

from rich.markup import escape
from rich.table import Column, Table

from pipeline.cli.inspect import print_trace
from pipeline.cli.tables import console
from pipeline.cli.terminal import print_json, say
from pipeline.errors import StoreError
from pipeline.run.start import find_run
from pipeline.store import RunDir, read_rows
from pipeline.store.shards import stage_manifests
from pipeline.store.stage_names import stage_folders


class Reason(NamedTuple):
    """Rows of one stage that share a status and a reason."""

    folder: str
    status: str
    """`unparsed`, `failed` or `dropped`."""
    reason: str
    rows: int
    example: str
    """Id of the first of them."""


def print_why(name: str, as_json: bool = False) -> None:
    """Print why rows of a run are not ok; or, given a row's id, its reason and where it comes from.

    Raises:
        UserError: there is no such run or row, or the run is damaged.
    """
    try:
        run = find_run(name)
    except StoreError:
        print_trace(name, None, as_json)
        return
    if as_json:
        print_json({"run": run.run_id, "reasons": [each._asdict() for each in reasons(run)]})
        return
    table = Table("stage", "status", Column("rows", justify="right"), "reason", "for example")
    for each in reasons(run):
        cells = (each.folder, each.status, f"{each.rows:,}", each.reason, each.example)
        table.add_row(*map(escape, cells))
    if not table.row_count:
        say(f"every row of {run.run_id} is ok")
        return
    console().print(table)
    say("`rlaif why ROW` shows one of them with the texts that led there")


def reasons(run: RunDir) -> Iterator[Reason]:
    """All reasons for which rows of a run are not ok: by stage, the most frequent first."""
    for folder in stage_folders(run.root):
        found: dict[tuple[str, str], list[str]] = {}
        for manifest in stage_manifests(run.root, folder):
            if not manifest.reasons:
                continue
            for row in read_rows(run.root, manifest):
                if row.status != "ok":
                    found.setdefault((row.status, row.reason), []).append(row.row_id)
        for (status, reason), ids in sorted(found.items(), key=lambda item: -len(item[1])):
            yield Reason(folder, status, reason, len(ids), ids[0])
