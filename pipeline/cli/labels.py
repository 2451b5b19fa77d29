"""The commands about labels from other sources: `rlaif labels import`, `rlaif labels agreement`.

Imports wait inside the commands, so that `rlaif --help` stays quick.
"""

from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.terminal import AsJson, print_json, say

labels_app = typer.Typer(
    no_args_is_help=True, help="Import, mix and compare labels from people and other sources."
)

INTERVAL = "95 % interval"
AGREEMENT_HEAD = ("sources", "items", "prompts", "split", "kappa", INTERVAL, "same label", INTERVAL)

SourceList = Annotated[Path, typer.Argument(help="A source list, YAML; see docs/labels.md.")]


@labels_app.command("import")
def import_labels(
    sources: SourceList,
    out: Annotated[Path, typer.Option(help="Parquet file to write; must not exist.")],
    json: AsJson = False,
) -> None:
    """Import all sources of a list and mix them by weight into one file."""
    from pipeline.errors import ConfigError
    from pipeline.sources.config import load_sources
    from pipeline.sources.importing import import_sources
    from pipeline.sources.mixing import mix
    from pipeline.sources.rows import write_labels

    if out.exists():
        raise ConfigError(f"{out} exists already; remove it or choose another name")
    config = load_sources(sources)
    imports = import_sources(config)
    mixture = mix(
        imports, {s.name: s.weight for s in config.sources}, size=config.size, seed=config.seed
    )
    write_labels(out, mixture.rows)
    for each in imports:
        say(each.record.text())
    say(mixture.text())
    say(f"{out}: {len(mixture.rows)} {mixture.rows[0].kind} rows")
    if json:
        print_json(
            {
                "out": out,
                "kind": mixture.rows[0].kind,
                "rows": len(mixture.rows),
                "shared": mixture.num_shared,
                "contradicted": mixture.num_contradicted,
                "sources": [asdict(each.record) for each in imports],
                "mixture": [asdict(count) for count in mixture.counts],
            }
        )


@labels_app.command()
def agreement(
    sources: SourceList,
    between: Annotated[
        tuple[str, str] | None, typer.Option(help="Names of two sources; default: every two.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Cohen's kappa between sources, on the items that both labeled."""
    from pipeline.cli.tables import console, number_table
    from pipeline.errors import ConfigError
    from pipeline.sources.agreement import agreement as agreement_of
    from pipeline.sources.config import FeedbackSource, load_sources
    from pipeline.sources.importing import import_source

    config = load_sources(sources)
    named = {source.name: source for source in config.sources}
    pairs = [n for n, s in named.items() if not isinstance(s, FeedbackSource)]
    for name in between or ():
        if name not in pairs:
            raise ConfigError(f"{sources} has no pairs of '{name}'; it has {', '.join(pairs)}")
    compared = between or pairs
    if len(set(compared)) < 2:
        raise ConfigError(
            f"agreement needs two different sources of pairs, but {sources} has "
            f"{len(set(compared))}; add one"
        )
    rows = {name: import_source(named[name], seed=config.seed).usable for name in compared}
    results = {
        pair: agreement_of(*(rows[name] for name in pair)) for pair in combinations(compared, 2)
    }
    if json:
        print_json([{"sources": pair, **asdict(result)} for pair, result in results.items()])
        return
    lines = []
    for pair, result in results.items():
        counts = (result.num_items, result.num_prompts, result.num_split)
        estimates: tuple[str, ...] = ()
        if equal := result.equal:
            estimates = (
                f"{result.kappa:z.3f}",
                f"{result.kappa_low:z.3f} to {result.kappa_high:z.3f}",
                f"{100 * equal.share:.1f} %",
                f"{100 * equal.low:.1f} to {100 * equal.high:.1f} %",
            )
        lines.append((", ".join(pair), *(f"{count:,}" for count in counts), *estimates))
    console().print(number_table(AGREEMENT_HEAD, lines))
