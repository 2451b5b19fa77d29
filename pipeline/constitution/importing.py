r"""Import published constitutions into our YAML: a person points at files on disk.

In:  one or two of
     - CritiqueRevisionInstructions.json of anthropics/ConstitutionalHarmlessnessPaper:
       {"harmful0": {"prompt": ["\n\nCritiqueRequest: ...\n\nCritique:"],
                     "edit_request": "\n\nRevisionRequest: ...\n\nRevision:"}, ...}
     - RLMadisonInstructions.json of the same: ["\n<principle> Options:", ...]
     - principles that were found from data: a .txt with one a line, one JSON text with numbered
       lines, or an object of number to text
     - the JSON of huggingface/llm-swarm: {"constitutions": [{"critic", "revision"}, ...],
       "system_chat": ...}, or the bare list
Out: a Constitution that loads, and notes on everything that was decided

The frames are removed unless `verbatim`; the published typing errors stay. The texts are not
shipped: the paper's repository states no license, so read them from your own copy.

The paper has two lists of 16 rules with no relation between their entries; ours has one. Because a
principle is drawn uniformly and independently for each critique and for each label, any pairing
that uses every entry of both lists equally often draws exactly as published: the pairing decides
only which texts share an id in the reports. So entries with many content words in common are
joined.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.paths import plain_bytes
from pipeline.constitution import Constitution, Principle
from pipeline.constitution.wording import content_words, jaccard
from pipeline.errors import ConfigError
from pipeline.store.files import write_text

SCHEMA_LINE = "# yaml-language-server: $schema=./schema.json"

_CRITIQUE_FRAME = re.compile(r"^\s*CritiqueRequest:\s*|\s*Critique:\s*$")
_REVISION_FRAME = re.compile(r"^\s*RevisionRequest:\s*|\s*Revision:\s*$")
_OPTIONS_FRAME = re.compile(r"\s*Options:\s*$")
_NUMBER = re.compile(r"^\s*(?:\(?\d+[.):]|[-*\u2022])\s+")
_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, in which a person can read and write."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


@dataclass(frozen=True)
class _Part:
    """Requests of one entry of a file: critique and revision, or a comparison."""

    id: str
    critique: str = ""
    revision: str = ""
    comparison: str = ""


@dataclass(frozen=True)
class Pairing:
    """Critiques joined with comparisons, as pairs of indices."""

    pairs: tuple[tuple[int, int], ...]
    num_critiques: int
    num_comparisons: int

    @property
    def draws_as_published(self) -> bool:
        """Whether every entry of each list is used equally often."""
        critiques = Counter(c for c, _ in self.pairs)
        comparisons = Counter(j for _, j in self.pairs)
        return len(set(critiques.values())) == 1 == len(set(comparisons.values()))

    def notes(self) -> list[str]:
        """Notes for whoever reads the imported constitution."""
        notes = [
            f"{self.num_critiques} critiques and {self.num_comparisons} comparisons are separate "
            "lists in the source; they were joined by common words, so an id in a report names two "
            "rules"
        ]
        if self.draws_as_published:
            notes.append("each entry is used equally often: draws are as published")
        else:
            notes.append(
                "the lists differ in length, so entries of the shorter one are used more than once "
                "and not equally often: draws are not exactly as published"
            )
        return notes


@dataclass(frozen=True)
class ImportedConstitution:
    """The constitution, and notes on what was decided while importing it."""

    constitution: Constitution
    notes: tuple[str, ...]

    def yaml_text(self) -> str:
        """A constitution file: the schema line, the notes as comments, then the YAML."""
        values = self.constitution.model_dump(mode="json", exclude_defaults=True)
        body = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
        notes = "".join(f"# {line}\n" for note in self.notes for line in note.splitlines())
        return f"{SCHEMA_LINE}\n{notes}{body}"

    def write(self, path: Path) -> None:
        """Write the file. Raises ConfigError when it exists, StoreError when the disk is full."""
        if path.exists():
            raise ConfigError(f"{path} exists already; remove it or give another name")
        write_text(path, self.yaml_text())


def import_constitution(
    paths: Sequence[Path], name: str, *, verbatim: bool = False
) -> ImportedConstitution:
    """Read the files, pair critiques with comparisons, and fill in requests that are missing.

    Args:
        verbatim: keep the frames; the loader strips white space at both ends all the same.

    Raises:
        ConfigError: a file is missing, not JSON, of another shape, or two have the same content.
    """
    critiques: list[_Part] = []
    comparisons: list[_Part] = []
    notes: list[str] = []
    for path in paths:
        parts, omissions = _read(path, verbatim)
        notes += omissions
        same_kind = comparisons if parts[0].comparison else critiques
        if same_kind:
            raise ConfigError(
                f"{path} holds the same kind of principles as another file; give at most one list "
                "of critiques and one of comparisons"
            )
        same_kind += parts
    if not paths:
        raise ConfigError("no file to import; give one or two JSON files")
    notes.append(
        "texts as in the files, frames included"
        if verbatim
        else "texts as in the files, typing errors included; frames such as 'CritiqueRequest:' "
        "and 'Options:' removed"
    )
    principles, more_notes = _principles(critiques, comparisons)
    source = "imported from " + " and ".join(path.name for path in paths)
    constitution = Constitution(name=name, source=source, principles=tuple(principles))
    return ImportedConstitution(constitution, (*notes, *more_notes))


def pair_comparisons(critiques: Sequence[str], comparisons: Sequence[str]) -> Pairing:
    """Pair each entry of the longer list with a similar entry of the shorter one, which repeats.

    Greedy by content words in common (Jaccard), ties by order in the files: deterministic. No
    entry of the shorter list is used a second time before all of them are used once.
    """
    swapped = len(comparisons) > len(critiques)
    longer, shorter = (comparisons, critiques) if swapped else (critiques, comparisons)
    words_long, words_short = ([content_words(t) for t in texts] for texts in (longer, shorter))
    by_similarity = sorted(
        (-jaccard(a, b), i, j) for i, a in enumerate(words_long) for j, b in enumerate(words_short)
    )
    partner: dict[int, int] = {}
    while len(partner) < len(longer):
        used: set[int] = set()
        for _, i, j in by_similarity:
            if i not in partner and j not in used:
                partner[i] = j
                used.add(j)
    pairs = sorted((j, i) if swapped else (i, j) for i, j in partner.items())
    return Pairing(tuple(pairs), len(critiques), len(comparisons))


def _read(path: Path, verbatim: bool) -> tuple[list[_Part], list[str]]:
    try:
        text = plain_bytes(path).decode("utf-8")
        value = text if path.suffix.lower() == ".txt" else json.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; check the path") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON ({error})") from None
    notes = []
    if isinstance(value, str) and len(value.split("\n")) > 1:
        lines = (_NUMBER.sub("", line).strip() for line in value.splitlines())
        value = [line for line in lines if line]
    elif isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values()):
        value = list(value.values())
    if isinstance(value, dict) and isinstance(value.get("constitutions"), list):
        left_out = [key for key in value if key != "constitutions"]
        if left_out:
            notes.append(
                f"left out of {path.name}: {', '.join(left_out)} (examples, not principles)"
            )
        value = value["constitutions"]
    parts = _parts(value, verbatim)
    if not parts:
        raise ConfigError(
            f"{path} has none of the known shapes: an object of 'prompt' and 'edit_request', a "
            "list of texts, or 'constitutions' with 'critic' and 'revision'; see "
            "docs/constitutions.md"
        )
    return parts, notes


def _parts(value: Any, verbatim: bool) -> list[_Part]:
    """The entries of a known shape; none when the shape is unknown."""
    try:
        if isinstance(value, dict):
            return [
                _Part(
                    key if _ID.match(key) else f"principle-{number:02d}",
                    critique=_plain(_only(entry["prompt"]), _CRITIQUE_FRAME, verbatim),
                    revision=_plain(entry["edit_request"], _REVISION_FRAME, verbatim),
                )
                for number, (key, entry) in enumerate(value.items(), start=1)
            ]
        if not isinstance(value, list):
            return []
        if all(isinstance(entry, str) for entry in value):
            return [
                _Part(f"comparison-{n:02d}", comparison=_plain(text, _OPTIONS_FRAME, verbatim))
                for n, text in enumerate(value, start=1)
            ]
        return [
            _Part(
                f"principle-{n:02d}",
                critique=_plain(entry["critic"], _CRITIQUE_FRAME, verbatim),
                revision=_plain(entry["revision"], _REVISION_FRAME, verbatim),
            )
            for n, entry in enumerate(value, start=1)
        ]
    except (TypeError, KeyError, ValueError):
        return []


def _only(value: Any) -> Any:
    """The text of a list with one text, as the paper's file has it; a text is itself."""
    if isinstance(value, list):
        (value,) = value
    return value


def _plain(text: Any, frame: re.Pattern[str], verbatim: bool) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ValueError("no text")
    plain = text if verbatim else frame.sub("", text).strip()
    if not plain:
        raise ValueError("nothing but the frame")
    return plain


def _principles(
    critiques: list[_Part], comparisons: list[_Part]
) -> tuple[list[Principle], list[str]]:
    """Principles with all three requests, and notes on the requests that were filled in."""
    if critiques and comparisons:
        pairing = pair_comparisons(
            [f"{c.critique} {c.revision}" for c in critiques], [c.comparison for c in comparisons]
        )
        return _joined(critiques, comparisons, pairing), pairing.notes()
    if critiques:
        question = 'Which response better follows this request: "{}"?'
        return [
            _principle(replace(c, comparison=question.format(c.revision))) for c in critiques
        ], [
            "the file compares nothing: each comparison_request asks which response better follows "
            "the revision request; write your own where that is not what you mean"
        ]
    critique = (
        "Name each way in which your last response could be better under this standard, or say "
        'that there is none: "{}"'
    )
    revision = (
        "Rewrite your last response so that it meets this standard as well as possible, and reply "
        'with the new response only: "{}"'
    )
    return [
        _principle(
            replace(
                c, critique=critique.format(c.comparison), revision=revision.format(c.comparison)
            )
        )
        for c in comparisons
    ], [
        "the file has comparisons only: critique and revision requests quote the comparison; write "
        "your own before you run the supervised phase"
    ]


def _joined(critiques: list[_Part], comparisons: list[_Part], pairing: Pairing) -> list[Principle]:
    joined: dict[str, Principle] = {}
    for i, j in pairing.pairs:
        part = critiques[i]
        names = (part.id if n == 1 else f"{part.id}-{n}" for n in count(1))
        name = next(name for name in names if name not in joined)
        joined[name] = _principle(replace(part, id=name, comparison=comparisons[j].comparison))
    return list(joined.values())


def _principle(part: _Part) -> Principle:
    return Principle(
        id=part.id,
        critique_request=part.critique,
        revision_request=part.revision,
        comparison_request=part.comparison,
    )
