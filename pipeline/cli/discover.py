"""The command `constitution discover`: what preference data rewards, as a constitution."""

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.cli.run import complete
from pipeline.cli.terminal import print_json, say
from pipeline.constitution.importing import import_constitution
from pipeline.discover.run import Discovery, Found, Request, discover
from pipeline.errors import ConfigError
from pipeline.stats import Estimate
from pipeline.store.files import write_text


def discover_constitution(
    request: Request, out: Path, as_text: Path | None, as_json: bool = False
) -> None:
    """Search, print what was found, and write it as a constitution.

    Raises:
        ConfigError: `out` or `as_text` exists, or an input cannot be used.
    """
    for path in (out, as_text):
        if path is not None and path.exists():
            raise ConfigError(f"{path} exists already; remove it or choose another name")
    discovery = complete(
        discover(request, say), lambda: "stopped; the same command continues from here"
    )
    for line in lines_of(discovery):
        say(line)
    if as_json:
        print_json(asdict(discovery))
    if as_text is not None:
        write_text(as_text, json.dumps(asdict(discovery), indent=1) + "\n")
    if not discovery.kept:
        say("no principle explains these labels, so no constitution was written")
        return
    with TemporaryDirectory() as folder:
        rules = Path(folder) / "found.txt"
        rules.write_text("".join(f"{found.name}\n" for found in discovery.kept))
        import_constitution([rules], "found").write(out)
    say(f"{out}: {len(discovery.kept)} principles; `rlaif constitution lint {out}` checks them")


def lines_of(discovery: Discovery) -> list[str]:
    """The figures for a person."""
    found = discovery
    lines = [
        f"found on {found.train_pairs} pairs, measured on {found.heldout_pairs} others of other "
        "conversations"
    ]
    lines += [_principle(each) for each in found.kept]
    lines += [
        f"random labels that {len(found.candidates)} candidates explain as well: "
        f"{100 * found.luck:.1f} %" + (": this may be luck" if found.luck > 0.05 else ""),
        f"held-out labels explained by what was found: {_told(found.found)}",
        f"  by the recipe's constitution: {_told(found.given)}",
        f"  by the judge without a principle: {_told(found.alone)}",
    ]
    if found.num_unreadable:
        lines.append(
            f"{found.num_unreadable} of {found.num_votes} votes could not be read or failed; they "
            "decide nothing"
        )
    for trait in found.traits:
        named = "" if trait.named else ", and no principle of the recipe names it"
        way = "with" if trait.explains and trait.explains.share > 0.5 else "against"
        share = _told(trait.explains)
        lines.append(f"the labels go {way} {trait.name}: they prefer it in {share}{named}")
    return lines


def _principle(found: Found) -> str:
    votes = found.votes
    return (
        f"{found.name}: right in {_told(found.explains)} of the held-out pairs that it decides, "
        f"which are {100 * votes.relevance:.0f} %"
    )


def _told(share: Estimate | None) -> str:
    if share is None:
        return "none"
    return f"{100 * share.share:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f} %)"
