"""The commands about constitutions: `lint`, `import`, `diff`, `impact`, `discover`.

Imports wait inside the commands, so that `rlaif --help` stays quick.
"""

from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.terminal import AsJson, print_json, say
from pipeline.errors import AuditError, ConfigError

if TYPE_CHECKING:
    from pipeline.store import RunDir

EXIT_ERRORS = 2

constitution_app = typer.Typer(
    no_args_is_help=True, help="Check, import and compare constitutions; measure a change."
)

Constitutions = Annotated[list[Path], typer.Argument(help="Constitutions, YAML.")]


@constitution_app.command()
def lint(files: Constitutions, json: AsJson = False) -> None:
    """List everything that is wrong or doubtful; exit code 2 when a file cannot be used."""
    from pipeline.constitution.lint import lint_constitution

    reports = [lint_constitution(path) for path in files]
    for report in reports:
        for finding in report.findings:
            say(finding.text(report.path))
        warnings = len(report.findings) - report.num_errors
        say(
            f"{report.path}: {_count(report.num_principles, 'principle')}, "
            f"{_count(report.num_errors, 'error')}, {_count(warnings, 'warning')}"
        )
    if json:
        print_json([asdict(report) for report in reports])
    raise typer.Exit(EXIT_ERRORS if any(report.num_errors for report in reports) else 0)


@constitution_app.command("import")
def import_files(
    files: Annotated[
        list[Path],
        typer.Argument(help="One or two published JSON files, or one document in Markdown."),
    ],
    name: Annotated[str, typer.Option(help="Name of the constitution.")],
    out: Annotated[Path, typer.Option(help="YAML file to write; must not exist.")],
    verbatim: Annotated[
        bool, typer.Option("--verbatim", help="Keep frames such as 'CritiqueRequest:'.")
    ] = False,
) -> None:
    """Turn a published list of principles, or the headings of a document, into a constitution."""
    from pydantic import ValidationError

    from pipeline.constitution.importing import import_constitution
    from pipeline.constitution.prose import SUFFIXES, import_prose

    documents = [path for path in files if path.suffix.lower() in SUFFIXES]
    if documents and (len(files) > 1 or verbatim):
        raise ConfigError(
            f"{documents[0]} is a document, which is imported alone and has no frames; give one "
            "file, without --verbatim"
        )
    try:
        imported = (
            import_prose(documents[0], name)
            if documents
            else import_constitution(files, name, verbatim=verbatim)
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][-1]) if first["loc"] else "constitution"
        where = "--name" if field == "name" else f"the {field} of a principle in {files[0]}"
        problem = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where} cannot be used ({problem}); correct it") from None
    imported.write(out)
    for note in imported.notes:
        say(f"note: {note}")
    say(
        f"{out}: {_count(len(imported.constitution.principles), 'principle')}; "
        f"`rlaif constitution lint {out}` lists what to review"
    )


@constitution_app.command()
def diff(
    old: Annotated[Path, typer.Argument(help="The version before.")],
    new: Annotated[Path, typer.Argument(help="The version after.")],
    json: AsJson = False,
) -> None:
    """Compare two versions by meaning, not by line."""
    from pipeline.constitution import load_constitution
    from pipeline.constitution.diff import diff_constitutions

    diff = diff_constitutions(load_constitution(old), load_constitution(new))
    say(diff.text())
    if json:
        print_json(asdict(diff))


@constitution_app.command()
def impact(
    run: Annotated[str, typer.Argument(help="Id or folder of a run with finished labels.")],
    new: Annotated[Path, typer.Argument(help="The changed constitution.")],
    run_id: Annotated[str | None, typer.Option(help="Name of the new run folder.")] = None,
    json: AsJson = False,
) -> None:
    """Label a run again under a changed constitution, and pay only for what changed.

    Repeat the command to continue one that was stopped, or to read its result again.
    """
    from pipeline.constitution import load_constitution
    from pipeline.impact.run import impact_run, run_impact
    from pipeline.progress import current_progress
    from pipeline.run.start import find_run

    before = find_run(run)

    async def work() -> bool:
        return (await run_impact(before, new, run_id=run_id, progress=current_progress()))[1]

    after = impact_run(before, load_constitution(new), run_id)
    _finish(work(), after, "stopped; the same command continues from here", json)


@constitution_app.command()
def discover(
    recipe: Annotated[Path, typer.Option(help="Its judge proposes and votes.")],
    out: Annotated[Path, typer.Option(help="YAML file to write; must not exist.")],
    pairs: Annotated[Path | None, typer.Argument(help="A file of labeled pairs.")] = None,
    label_type: Annotated[
        str | None, typer.Option("--type", help="Type of the file; `pairs` by default.")
    ] = None,
    sources: Annotated[Path | None, typer.Option(help="A source list instead of a file.")] = None,
    run: Annotated[str | None, typer.Option(help="A run whose own pairs to read instead.")] = None,
    principles: Annotated[
        Path | None, typer.Option(help="Candidates, one a line, instead of the judge's.")
    ] = None,
    limit: Annotated[int, typer.Option(min=20, help="Pairs to use.")] = 200,
    candidates: Annotated[int, typer.Option(min=1, help="Candidates to vote on.")] = 20,
    most: Annotated[int, typer.Option(min=1, help="Principles to keep.")] = 5,
    seed: Annotated[int, typer.Option(help="Another seed draws other pairs.")] = 0,
    figures: Annotated[Path | None, typer.Option(help="JSON file for all figures.")] = None,
    json: AsJson = False,
) -> None:
    """Find the principles that explain preference labels, and compare them with a constitution."""
    from pipeline.cli.discover import discover_constitution
    from pipeline.cli.judge_eval import sources_of
    from pipeline.discover.run import Request
    from pipeline.run.start import find_run
    from pipeline.sources.config import AnySource, DatasetSource

    if run is None:
        listed: tuple[AnySource, ...] = sources_of(pairs, sources, label_type)
    elif pairs or sources or label_type:
        raise ConfigError("the labels come from one place; name --run alone, or leave it out")
    else:
        folder = find_run(run)
        path = folder.dataset / "preference.parquet"
        if not path.is_file():
            raise ConfigError(
                f"run {folder.run_id} has no preference set; `rlaif resume {folder.run_id}` "
                "finishes a run that was stopped"
            )
        listed = (DatasetSource(type="dataset", name="run", path=path),)
    request = Request(
        recipe, listed, principles, limit=limit, candidates=candidates, most=most, seed=seed
    )
    discover_constitution(request, out, figures, json)


def resume_impact(run: "RunDir") -> None:
    """Continue an impact run, then print its result."""
    from pipeline.impact.run import continue_impact
    from pipeline.progress import current_progress

    async def work() -> bool:
        return await continue_impact(run, current_progress())

    _finish(work(), run, f"stopped; `rlaif resume {run.run_id}` continues from here")


def _finish(
    work: Coroutine[Any, Any, bool], run: "RunDir", when_stopped: str, as_json: bool = False
) -> None:
    """Do the work, then print the result, even if the labels failed their audit."""
    from pipeline.cli.run import complete

    try:
        if not complete(work, lambda: when_stopped):
            say(f"run {run.run_id} was finished before; this is its result")
    except AuditError:
        print_impact(run, as_json)
        raise
    print_impact(run, as_json)


def print_impact(run: "RunDir", as_json: bool = False) -> None:
    """Tables for the terminal, then the sentences and where the files are."""
    from pipeline.cli.tables import console, number_table
    from pipeline.impact.run import load_impact
    from pipeline.impact.text import headline, tables

    impact = load_impact(run)
    if as_json:
        print_json(impact.model_dump(mode="json"))
        return
    say(f"{impact.before_run} -> {impact.run_id}\n{impact.diff}\n")
    for table in tables(impact):
        if table.rows:
            rows = [[str(cell) for cell in row.values()] for row in table.rows]
            num_names = 2 if table.columns[1] in ("change", "now") else 1
            console().print(
                number_table(table.columns, rows, title=table.title, num_names=num_names)
            )
    for line in (*headline(impact), *impact.notes):
        say(line)
    say(f"impact: {run.root / 'impact.md'}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
