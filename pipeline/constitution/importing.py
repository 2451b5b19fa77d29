r"""Import published constitutions into our YAML: a person points at files on disk.

In:  one or two of
     - CritiqueRevisionInstructions.json of anthropics/ConstitutionalHarmlessnessPaper:
       {"harmful0": {"prompt": ["\n\nCritiqueRequest: ...\n\nCritique:"],
                     "edit_request": "\n\nRevisionRequest: ...\n\nRevision:"}, ...}
     - RLMadisonInstructions.json of the same: ["\n<principle> Options:", ...]
     - the JSON of huggingface/llm-swarm: {"constitutions": [{"critic", "revision"}, ...],
       "system_chat": ...}, or the bare list
Out: a Constitution that loads, and notes on everything that was decided

The frames are removed unless `verbatim`; the published typing errors stay. Nothing is shipped: the
paper's repository states no license, so read it from your own copy.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from pipeline.constitution import Constitution, Principle
from pipeline.constitution.pairing import Pairing, pair_comparisons
from pipeline.errors import ConfigError
from pipeline.store.files import write_text

SCHEMA_LINE = "# yaml-language-server: $schema=./schema.json"

_CRITIQUE_FRAME = re.compile(r"^\s*CritiqueRequest:\s*|\s*Critique:\s*$")
_REVISION_FRAME = re.compile(r"^\s*RevisionRequest:\s*|\s*Revision:\s*$")
_OPTIONS_FRAME = re.compile(r"\s*Options:\s*$")
_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")


@dataclass(frozen=True)
class _Part:
    """Requests of one entry of a file: critique and revision, or a comparison."""

    id: str
    critique: str = ""
    revision: str = ""
    comparison: str = ""


@dataclass(frozen=True)
class ImportedConstitution:
    """The constitution and what a person should know about it."""

    constitution: Constitution
    notes: tuple[str, ...]

    def yaml_text(self) -> str:
        """A constitution file: the schema line, the notes as comments, then the YAML."""
        values = self.constitution.model_dump(mode="json", exclude_defaults=True)
        body = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
        notes = "".join(f"# {line}\n" for note in self.notes for line in note.splitlines())
        return f"{SCHEMA_LINE}\n{notes}{body}"

    def write(self, path: Path) -> None:
        """Write the file. Raises ConfigError when it exists, StoreError when it cannot be written."""
        if path.exists():
            raise ConfigError(f"{path} exists already; remove it or give another name")
        write_text(path, self.yaml_text())


def import_constitution(
    paths: Sequence[Path], name: str, *, verbatim: bool = False
) -> ImportedConstitution:
    """Read the files, pair critiques with comparisons where both are given, fill what is missing.

    Args:
        verbatim: keep the frames; the loader strips white space at both ends all the same.

    Raises:
        ConfigError: a file is missing, not JSON, of another shape, or two have the same content.
    """
    critiques: list[_Part] = []
    comparisons: list[_Part] = []
    notes: list[str] = []
    for path in paths:
        parts, found = _read(path, verbatim)
        notes += found
        kept = comparisons if parts[0].comparison else critiques
        if kept:
            raise ConfigError(
                f"{path} holds the same kind of principles as another file; give at most one list of "
                "critiques and one of comparisons"
            )
        kept += parts
    if not paths:
        raise ConfigError("no file to import; give one or two JSON files")
    notes.append(
        "texts as in the files, frames included"
        if verbatim
        else "texts as in the files, typing errors included; frames such as 'CritiqueRequest:' "
        "and 'Options:' removed"
    )
    principles, made = _principles(critiques, comparisons)
    source = "imported from " + " and ".join(path.name for path in paths)
    constitution = Constitution(name=name, source=source, principles=tuple(principles))
    return ImportedConstitution(constitution, (*notes, *made))


def _read(path: Path, verbatim: bool) -> tuple[list[_Part], list[str]]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; check the path") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON ({error})") from None
    notes = []
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
            f"{path} has none of the known shapes: an object of 'prompt' and 'edit_request', a list "
            "of texts, or 'constitutions' with 'critic' and 'revision'; see docs/constitutions.md"
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
    if critiques and comparisons:
        pairing = pair_comparisons(
            [f"{c.critique} {c.revision}" for c in critiques], [c.comparison for c in comparisons]
        )
        return _joined(critiques, comparisons, pairing), pairing.notes()
    if critiques:
        return [
            _principle(c, comparison=f'Which response better follows this request: "{c.revision}"?')
            for c in critiques
        ], [
            "the file compares nothing: each comparison_request asks which response better follows "
            "the revision request; write your own where that is not what you mean"
        ]
    return [
        _principle(
            c,
            comparison=c.comparison,
            critique="Name each way in which your last response could be better under this standard, "
            f'or say that there is none: "{c.comparison}"',
            revision="Rewrite your last response so that it meets this standard as well as possible, "
            f'and reply with the new response only: "{c.comparison}"',
        )
        for c in comparisons
    ], [
        "the file has comparisons only: critique and revision requests quote the comparison; write "
        "your own before you run the supervised phase"
    ]


def _joined(critiques: list[_Part], comparisons: list[_Part], pairing: Pairing) -> list[Principle]:
    joined: dict[str, Principle] = {}
    for c, j in pairing.pairs:
        part = critiques[c]
        names = (part.id if n == 1 else f"{part.id}-{n}" for n in count(1))
        name = next(name for name in names if name not in joined)
        joined[name] = _principle(part, id=name, comparison=comparisons[j].comparison)
    return list(joined.values())


def _principle(part: _Part, **given: str) -> Principle:
    return Principle(
        id=given.get("id", part.id),
        critique_request=given.get("critique", part.critique),
        revision_request=given.get("revision", part.revision),
        comparison_request=given.get("comparison", part.comparison),
    )
