"""The commands that look at files: `check`, `trace`, `verify`, `runs`."""

import sys
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.tree import Tree

from pipeline.config.yaml_file import parse_yaml
from pipeline.constitution import load_constitution
from pipeline.data.dataset import load_dataset
from pipeline.data.lineage import Origin, trace
from pipeline.data.verify import verify
from pipeline.errors import ConfigError, DataError, UserError
from pipeline.prompting.templates import PromptTemplate, variables_of
from pipeline.run.start import check_recipe, find_run, runs_root
from pipeline.store import RunDir

WIDTH = 160
SHOWN = (
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
)
"""Columns that `trace` prints, in this order."""


def check_file(path: Path) -> None:
    """Check one recipe, constitution or template, told apart by suffix and content.

    Raises:
        UserError: the first thing to correct.
    """
    kind = kind_of(path)
    if kind == "template":
        PromptTemplate.from_file(path, variables_of(path.stem))
        typer.echo(f"{path}: template, fine")
    elif kind == "constitution":
        constitution = load_constitution(path)
        ids = ", ".join(p.id for p in constitution.principles)
        typer.echo(f"{path}: constitution '{constitution.name}', principles {ids}; fine")
    else:
        facts = check_recipe(path)
        typer.echo(f"{path}: recipe, fine")
        for name, value in facts:
            typer.echo(f"  {name:<14}{value}")


def kind_of(path: Path) -> str:
    """`template`, `constitution` or `recipe`. Raises ConfigError for other files."""
    if path.suffix in (".jinja", ".j2"):
        return "template"
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(
            f"{path} is neither YAML nor a Jinja template; name a recipe, a constitution or a "
            "template"
        )
    if not path.exists():
        raise ConfigError(f"{path} does not exist; check the path")
    value, _ = parse_yaml(path.read_text(encoding="utf-8", errors="replace"), str(path))
    is_recipe = isinstance(value, dict) and bool({"policy", "prompts", "constitution"} & set(value))
    return "recipe" if is_recipe else "constitution"


def print_trace(row_id: str, run: str | None) -> None:
    """Print the whole origin of a row as a tree, the row first and its prompt last.

    Raises:
        UserError: no run has the row, or one is damaged.
    """
    origin = trace(find_run(run), row_id) if run else _trace_anywhere(row_id)
    wide_console().print(origin_tree(origin))


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
    head = f"[bold]{origin.kind}[/] {origin.row_id[:24]}"
    if origin.shown_before:
        head += " [dim](shown above)[/]"
    node = Tree(head) if tree is None else tree.add(head)
    for name, value in facts_of(origin):
        node.add(f"[dim]{name}:[/] {escape(value)}")
    for parent in origin.parents:
        origin_tree(parent, node)
    return node


def facts_of(origin: Origin) -> list[tuple[str, str]]:
    """What is worth a line: where the row is, its texts and numbers, model and principle."""
    if origin.shown_before:
        return []
    if origin.kind == "label":
        return [
            ("file", f"{origin.file}, line {origin.row['source_index']}"),
            ("sha256", origin.row_id),
            ("source", origin.row["source"]),
        ]
    found = [("file", f"{origin.run_id}/{origin.file}")]
    if origin.principle is not None:
        found.append(("principle", origin.principle.id))
    if origin.engine:
        found.append(
            (
                "model",
                f"{origin.engine['name']}, {origin.engine['version']}, "
                f"fingerprint {origin.engine['fingerprint'][:16]}",
            )
        )
    for name in SHOWN:
        value = origin.row.get(name)
        if value not in (None, "", []):
            found.append((name, f"{value:.4f}" if isinstance(value, float) else str(value)))
    for message in origin.row.get("messages") or []:
        if origin.kind == "prompt":
            found.append((message["role"], message["content"]))
    return found


def print_problems(run: str) -> bool:
    """Check a run's files against their hashes; True when something is wrong."""
    found = find_run(run)
    problems = verify(found)
    for problem in problems:
        typer.echo(problem)
    typer.echo(
        f"{found.run_id}: {len(problems)} problems"
        if problems
        else f"{found.run_id}: every file is what its manifest says"
    )
    return bool(problems)


def print_runs() -> None:
    """A table of all runs, the newest first."""
    table = Table(
        Column("run", no_wrap=True), "status", "constitution", "pairs", "version", "report"
    )
    for run in all_runs():
        info, dataset = run.info(), load_dataset(run)
        pairs = (
            dataset.sets["preference"].rows if dataset and "preference" in dataset.sets else None
        )
        table.add_row(
            run.run_id,
            str(info.get("status", "?")),
            info.get("constitution", {}).get("name", "?"),
            "" if pairs is None else f"{pairs:,}",
            str(dataset.version) if dataset else "",
            "yes" if run.report.exists() else "",
        )
    wide_console().print(table if table.row_count else f"no runs below {runs_root()} yet")


def wide_console() -> Console:
    """As wide as the terminal; wide enough for whole ids where there is none."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def all_runs() -> list[RunDir]:
    """Every run, the newest first."""
    found = [path.parent for path in runs_root().glob("*/run.json")]
    return [RunDir(p) for p in sorted(found, key=lambda p: p.stat().st_ctime, reverse=True)]
