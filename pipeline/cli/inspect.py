"""The commands that look at files: `check`, `trace`, `verify`, `export`, `runs`."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Column, Table
from rich.tree import Tree

from pipeline.cli.tables import console
from pipeline.cli.terminal import print_json, say
from pipeline.config.yaml_file import parse_yaml, read_text
from pipeline.constitution import load_constitution
from pipeline.data.dataset import load_dataset
from pipeline.data.hub import push_dataset
from pipeline.data.json_lines import export_lines
from pipeline.data.lineage import Origin, trace
from pipeline.data.verify import check_files
from pipeline.errors import ConfigError, DataError, StoreError, UserError
from pipeline.prompting.templates import PromptTemplate, variables_of
from pipeline.run.start import check_recipe, find_run, runs_root
from pipeline.store import RunDir, RunLock
from pipeline.store.inventory import NOT_COVERED, close_inventory
from pipeline.store.shards import leftover_attempts

TRACED_COLUMNS = [
    "status",
    "reason",
    "response",
    "critique",
    "revision",
    "completion",
    "chosen",
    "rejected",
    "soft_label",
    "margin",
    "label",
    "weight",
    "events",
    "method",
    "rationales",
    "prob_first",
    "prob_forward",
    "prob_swapped",
    "position_gap",
    "score",
    "parts",
    "values",
    "part_differences",
    "sample_index",
    "round",
    "seed",
    "source",
    "source_index",
]
"""Columns that `trace` prints, in this order."""
SHOWN_IDS = 5
"""Rows that `export` names of those it leaves out for one reason."""


def check_file(path: Path, *, overrides: Sequence[str], offline: bool) -> dict[str, Any]:
    """Check and print one recipe, constitution or template, told apart by suffix and content.

    Args:
        overrides: values to replace in a recipe, each `key.path=value`.
        offline: do not ask the endpoints of a recipe.

    Returns:
        kind, path, and facts: pairs of a subject and a line.

    Raises:
        UserError: the first thing to correct.
    """
    kind = kind_of(path)
    if overrides and kind != "recipe":
        raise ConfigError(f"--set changes a recipe, but {path} is a {kind}; leave it out")
    facts: list[tuple[str, str]] = []
    if kind == "template":
        PromptTemplate.from_file(path, variables_of(path.stem))
    elif kind == "constitution":
        constitution = load_constitution(path)
        principles = ", ".join(p.id for p in constitution.principles)
        facts = [("name", constitution.name), ("principles", principles)]
    else:
        facts = check_recipe(path, overrides=overrides, offline=offline).facts
    say(f"OK: {kind} {path}")
    for name, value in facts:
        say(f"  {name:<14}{value}")
    return {"kind": kind, "path": str(path), "facts": facts}


def kind_of(path: Path) -> str:
    """`template`, `constitution` or `recipe`. Raises ConfigError for other files."""
    if path.suffix in (".jinja", ".j2"):
        return "template"
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(
            f"{path} is neither YAML nor a Jinja template; name a recipe, a constitution or a "
            "template"
        )
    value, _ = parse_yaml(read_text(path, str(path)), str(path))
    is_recipe = isinstance(value, dict) and bool({"policy", "prompts", "constitution"} & set(value))
    return "recipe" if is_recipe else "constitution"


def print_trace(row_id: str, run: str | None, as_json: bool = False) -> None:
    """Print the whole origin of a row as a tree, the row first and its prompt last.

    Raises:
        UserError: no run has the row, or one is damaged.
    """
    origin = trace(find_run(run), row_id) if run else _trace_anywhere(row_id)
    if as_json:
        print_json(origin_values(origin))
    else:
        console().print(origin_tree(origin))


def _trace_anywhere(row_id: str) -> Origin:
    for run in all_runs():
        try:
            return trace(run, row_id)
        except DataError:
            raise
        except UserError:
            continue
    raise UserError(
        f"no run below {runs_root()} has a row {row_id}; take an id from the column row_id of a "
        "data set or shard"
    )


def origin_tree(origin: Origin, tree: Tree | None = None) -> Tree:
    """The origin as a tree of lines."""
    head = f"[bold]{origin.kind}[/] {escape(origin.row_id[:24])}"
    if origin.shown_before:
        head += " [dim](shown above)[/]"
    node = Tree(head) if tree is None else tree.add(head)
    for name, value in facts_of(origin):
        node.add(f"[dim]{escape(name)}:[/] {escape(value)}")
    for parent in origin.parents:
        origin_tree(parent, node)
    return node


def origin_values(origin: Origin) -> dict[str, Any]:
    """The origin as plain values: the row, its file and model, and its parents."""
    return {
        "kind": origin.kind,
        "run": origin.run_id,
        "file": origin.file,
        "engine": origin.engine,
        "principle": origin.principle.id if origin.principle else None,
        "row": origin.row,
        "shown_before": origin.shown_before,
        "parents": [origin_values(parent) for parent in origin.parents],
    }


def facts_of(origin: Origin) -> list[tuple[str, str]]:
    """What is worth a line: where the row is, its texts and numbers, model and principle."""
    if origin.shown_before:
        return []
    row = origin.row
    if origin.kind == "label":
        file = f"{origin.file}, line {row['source_index']}"
        return [("file", file), ("sha256", origin.row_id), ("source", row["source"])]
    facts = [("file", f"{origin.run_id}/{origin.file}")]
    if origin.principle is not None:
        facts.append(("principle", origin.principle.id))
    if origin.engine:
        engine = origin.engine
        model = f"{engine['name']}, {engine['version']}, fingerprint {engine['fingerprint'][:16]}"
        facts.append(("model", model))
    facts += [
        (name, f"{value:.4f}" if isinstance(value, float) else str(value))
        for name in TRACED_COLUMNS
        if (value := row.get(name)) not in (None, "", [])
    ]
    if origin.kind == "prompt":
        facts += [(message["role"], message["content"]) for message in row.get("messages") or []]
    return facts


def print_problems(name: str, as_json: bool = False) -> bool:
    """Check a run's files against their hashes; True when something is wrong."""
    run = find_run(name)
    checked = check_files(run)
    problems, uncovered = checked.problems, checked.uncovered
    if as_json:
        values = {"problems": problems, "uncovered": uncovered, "covered": checked.num_covered}
        print_json({"run": run.run_id, **values})
        return bool(problems)
    for problem in problems:
        say(problem)
    if run.root.name != run.run_id:
        say(f"note: the folder of run {run.run_id} is called {run.root.name} now")
    for folder, names in groupby(map(Path, uncovered), lambda path: path.parent):
        say(f"not covered yet: {folder / ', '.join(path.name for path in names)}")
    for leftover in checked.leftovers:
        say(f"note: {leftover} is named by no manifest; `rlaif clean {run.run_id}` removes it")
    say(f"note: not covered by a hash: {', '.join(NOT_COVERED)}")
    result = "every file matches its hash"
    if uncovered:
        result = f"{checked.num_covered:,} files match their hash"
    if problems:
        result = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
    if uncovered:
        result += (
            f", and {len(uncovered):,} are not covered by one, because the run has not ended; "
            f"`rlaif resume {run.run_id}` continues it"
        )
    say(f"{run.run_id}: {result}")
    return bool(problems)


def clean_run(name: str) -> None:
    """Remove the files of workers' attempts that no manifest names. Raises StoreError while the run
    is in use.
    """
    run = find_run(name).require()
    with RunLock(run.root):
        paths = leftover_attempts(run.root)
        size = sum(path.stat().st_size for path in paths)
        for path in paths:
            path.unlink()
    if run.info().get("status") == "finished":
        close_inventory(run.root)
    say(f"{run.run_id}: removed {len(paths)} files that no manifest names ({size / 2**20:.1f} MiB)")


def export_run(run: str, out: Path, shape: str, as_json: bool = False) -> None:
    """Write the preference set of a run as JSON Lines. Raises UserError without such a set."""
    folder = find_run(run)
    exported = export_lines(folder, out, shape)
    say(f"{out}: {exported.lines:,} lines of {folder.run_id} for {shape}")
    for reason, ids in exported.left_out.items():
        more = " ..." if len(ids) > SHOWN_IDS else ""
        rows = f"{len(ids):,} row{'s' * (len(ids) != 1)}"
        say(f"left out {rows}: {reason} ({', '.join(ids[:SHOWN_IDS])}{more})")
    if as_json:
        print_json({"run": folder.run_id, "out": out, "format": shape, **exported._asdict()})


def push_run(run: str, repository: str, shape: str, as_json: bool = False) -> None:
    """Push the data set of a run to the Hub. Raises UserError as `push_dataset`."""
    if shape != "trl":
        raise ConfigError(f"a push is Parquet as it is, but --format is {shape}; leave it out")
    folder = find_run(run)
    address = push_dataset(folder, repository, say)
    say(f"pushed: {address}")
    if as_json:
        print_json({"run": folder.run_id, "pushed": address})


def print_runs(as_json: bool = False) -> None:
    """A table of all runs, the newest first."""
    rows = [_run_values(run) for run in all_runs()]
    if as_json:
        print_json(rows)
        return
    table = Table(
        Column("run", no_wrap=True), "status", "constitution", "pairs", "version", "report"
    )
    for row in rows:
        pairs, version = row["pairs"], row["version"]
        table.add_row(
            escape(row["run"]),
            escape(row["status"]),
            escape(row["constitution"] or ""),
            "" if pairs is None else f"{pairs:,}",
            "" if version is None else str(version),
            "yes" if row["report"] else "",
        )
    console().print(table if table.row_count else f"no runs below {runs_root()} yet")


def _run_values(run: RunDir) -> dict[str, Any]:
    values: dict[str, Any] = {"run": run.root.name, "folder": str(run.root)}
    unknown = dict.fromkeys(("constitution", "pairs", "version", "report"))
    try:
        info, dataset = run.info(), load_dataset(run)
    except StoreError:
        return {**values, "status": "damaged run.json", **unknown}
    pairs = dataset.sets.get("preference") if dataset else None
    return {
        **values,
        "run": run.run_id,
        "status": str(info.get("status", "?")),
        "constitution": str((info.get("constitution") or {}).get("name", "?")),
        "pairs": pairs.rows if pairs else None,
        "version": dataset.version if dataset else None,
        "report": str(run.report) if run.report.exists() else None,
    }


def all_runs() -> list[RunDir]:
    """Every run, the newest first."""
    records = sorted(
        runs_root().glob("*/run.json"), key=lambda path: path.parent.stat().st_ctime, reverse=True
    )
    return [RunDir(path.parent) for path in records]
