"""The commands about labels of other sources: `rlaif labels import` and `rlaif labels agreement`.

Imports wait inside the commands, so that `rlaif --help` stays quick.
"""

from itertools import combinations
from pathlib import Path
from typing import Annotated

import typer

labels_app = typer.Typer(
    no_args_is_help=True, help="Import, mix and compare labels of people and other sources."
)

SourceList = Annotated[Path, typer.Argument(help="A source list, YAML; see docs/labels.md.")]


@labels_app.command("import")
def import_labels(
    sources: SourceList,
    out: Annotated[Path, typer.Option(help="Parquet file to write; must not exist.")],
) -> None:
    """Import all sources of a list and mix them by weight into one file."""
    from pipeline.errors import ConfigError
    from pipeline.sources.config import load_sources
    from pipeline.sources.importing import import_sources
    from pipeline.sources.mixing import mix
    from pipeline.sources.rows import write_labels

    if out.exists():
        raise ConfigError(f"{out} exists already; remove it or give another name")
    config = load_sources(sources)
    imports = import_sources(config)
    mixture = mix(
        imports, {s.name: s.weight for s in config.sources}, size=config.size, seed=config.seed
    )
    write_labels(out, mixture.rows)
    for each in imports:
        typer.echo(each.record.text())
    typer.echo(mixture.text())
    typer.echo(f"{out}: {len(mixture.rows)} {mixture.rows[0].kind} rows")


@labels_app.command()
def agreement(
    sources: SourceList,
    between: Annotated[
        tuple[str, str] | None, typer.Option(help="Names of two sources; else every pair.")
    ] = None,
) -> None:
    """Cohen's kappa between sources, on the items that both labeled."""
    from rich.markup import escape
    from rich.table import Column, Table

    from pipeline.cli.inspect import wide_console
    from pipeline.errors import ConfigError
    from pipeline.sources.agreement import agreement as agreement_of
    from pipeline.sources.config import FeedbackSource, load_sources
    from pipeline.sources.importing import import_source

    config = load_sources(sources)
    named = {source.name: source for source in config.sources}
    for name in between or ():
        if name not in named:
            raise ConfigError(f"{sources} has no source '{name}'; it has {', '.join(named)}")
    chosen = list(between or [n for n, s in named.items() if not isinstance(s, FeedbackSource)])
    if len(set(chosen)) < 2:
        raise ConfigError(
            f"{sources} has {len(chosen)} source of pairs to compare, but agreement needs two "
            "different ones; add one"
        )
    rows = {name: import_source(named[name], seed=config.seed).usable for name in chosen}
    table = Table(
        "sources",
        *(
            Column(name, justify="right")
            for name in (
                "items",
                "prompts",
                "split",
                "kappa",
                "95 % interval",
                "same label",
                "95 % interval",
            )
        ),
    )
    for first, second in combinations(chosen, 2):
        found = agreement_of((first, rows[first]), (second, rows[second]))
        cells = (
            ("", "", "", "")
            if found.equal is None
            else (
                _number(found.kappa),
                f"{_number(found.kappa_low)} to {_number(found.kappa_high)}",
                f"{found.equal.share:.1%}",
                f"{found.equal.low:.1%} to {found.equal.high:.1%}",
            )
        )
        table.add_row(
            escape(f"{first}, {second}"),
            f"{found.num_items:,}",
            f"{found.num_prompts:,}",
            f"{found.num_split:,}",
            *cells,
        )
    wide_console().print(table)


def _number(value: float) -> str:
    # Without the sign of a zero that was a little less.
    return f"{round(value, 3) + 0.0:.3f}"
