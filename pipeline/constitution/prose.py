"""Import a long document in Markdown: its headings become principles, their text the rationale.

In:  one .md file
Out: a Constitution that loads, with drafts of the three requests, and notes on what was decided

    # Title                    the document's own title, when no other heading is as high
    An introduction.           description
    ## Honesty                 no text of its own: a tag of the principles below it
    ### Say what is true       principle `say-what-is-true`, tags [honesty]
    Because trust ...          its rationale, as it is written

A document says why, not what to ask a model. So a person finishes the drafts (`DRAFTS`), which
quote the heading; the linter lists those that are left.

Does not: shorten a rationale, or read headings inside of quotes and lists.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path

from markdown_it import MarkdownIt

from pipeline.config.paths import file_problem
from pipeline.config.yaml_file import NO_TEXT
from pipeline.constitution import Constitution, Principle
from pipeline.constitution.importing import ImportedConstitution
from pipeline.errors import ConfigError

SUFFIXES = (".md", ".markdown")
MAX_BYTES = 1_000_000
"""Largest document, about 160,000 words."""
MAX_PRINCIPLES = 200
"""Most headings; the linter compares each with each."""
DRAFTS = {
    "critique_request": (
        'Name each part of your last response that goes against this principle: "{}". If there is '
        "none, say so."
    ),
    "revision_request": (
        'Rewrite your last response so that it follows this principle: "{}". Keep what is right, '
        "and reply with the response only."
    ),
    "comparison_request": 'Which response better follows this principle: "{}"?',
}
"""The requests of an imported principle; the braces stand for its heading."""
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n.*?\n---[ \t]*\n", re.DOTALL)


@dataclass(frozen=True)
class Section:
    """A heading with the text up to the next one."""

    level: int
    """1 to 6."""
    title: str
    """One line, without marks such as `**`."""
    text: str


def import_prose(path: Path, name: str) -> ImportedConstitution:
    """A constitution of the headings of a document.

    Raises:
        ConfigError: the file is missing, too large, not text in UTF-8, or has no heading or too
            many.
    """
    before, sections = sections_of(_read(path))
    if not sections:
        raise ConfigError(
            f"{path} has no heading, but each heading becomes a principle; put a line such as "
            "'## Be honest' before the text of each"
        )
    notes = [
        "each heading is a principle, and the text below it is the rationale; the three requests "
        "are drafts that quote the heading: write your own"
    ]
    description = ""
    if len(sections) > 1 and all(s.level > sections[0].level for s in sections[1:]):
        title, *sections = sections
        description = " ".join(title.text.split())
        notes.append(f"'{title.title}' is the title of the document; its text is the description")
    if before:
        notes.append(f"left out of {path.name}: the text before the first heading")
    groups = [
        s.title
        for s, below in zip(sections, [*sections[1:], None], strict=True)
        if below and not s.text and below.level > s.level
    ]
    if groups:
        notes.append(f"headings without text of their own are tags: {', '.join(groups)}")
    principles = tuple(_principles(sections))
    if len(principles) > MAX_PRINCIPLES:
        raise ConfigError(
            f"{path} has {len(principles)} headings, but at most {MAX_PRINCIPLES} become "
            "principles; import a part of it, or join sections"
        )
    return ImportedConstitution(
        Constitution(
            name=name,
            description=description,
            source=f"imported from {path.name}",
            principles=principles,
        ),
        tuple(notes),
    )


def sections_of(text: str) -> tuple[str, list[Section]]:
    """The text before the first heading, and the headings with theirs. A heading without a title
    belongs to the text around it.
    """
    lines = text.split("\n")
    # Inline markup matters only in headings: leaving the rest alone is quick and cannot fail.
    parser = MarkdownIt("commonmark").disable("inline")
    tokens = parser.parse(text)
    parser.enable("inline")
    headings: list[tuple[int, int, int, str]] = []
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open" and opening.level == 0 and opening.map:
            title = _plain(parser, inline.content)
            if title:
                start, after = opening.map
                headings.append((start, after, int(opening.tag[1:]), title))
    starts = [start for start, _, _, _ in headings] + [len(lines)]
    return "\n".join(lines[: starts[0]]).strip(), [
        Section(level, title, "\n".join(lines[after:end]).strip())
        for (_, after, level, title), end in zip(headings, starts[1:], strict=True)
    ]


def _plain(parser: MarkdownIt, markup: str) -> str:
    (inline,) = parser.parseInline(markup)
    parts = (
        child.content if child.type in ("text", "code_inline") else " " * ("break" in child.type)
        for child in inline.children or ()
    )
    return " ".join("".join(parts).split())


def _principles(sections: Sequence[Section]) -> Iterator[Principle]:
    taken: set[str] = set()
    above: list[Section] = []
    for number, section in enumerate(sections, start=1):
        while above and above[-1].level >= section.level:
            above.pop()
        parent = above[-1] if above else None
        above.append(section)
        below = sections[number] if number < len(sections) else None
        if not section.text and below and below.level > section.level:
            continue
        slug = slug_of(section.title) or f"principle-{number:02d}"
        names = (slug if n == 1 else f"{slug[:90]}-{n}" for n in count(1))
        identity = next(name for name in names if name not in taken)
        taken.add(identity)
        yield Principle.model_validate(
            {
                "id": identity,
                **{key: draft.replace("{}", section.title) for key, draft in DRAFTS.items()},
                "tags": (slug_of(parent.title) or parent.title,) if parent else (),
                "rationale": section.text,
            }
        )


def slug_of(title: str) -> str:
    """An id from a heading: ASCII letters and digits in lower case, joined by hyphens; at most 100
    characters, and empty when there are none.
    """
    return "-".join(re.findall(r"[a-z0-9]+", title.lower()))[:100].rstrip("-")


def is_draft(key: str, text: str) -> bool:
    """Whether a request is still as it was imported."""
    head, tail = DRAFTS[key].split("{}")
    return len(text) > len(head + tail) and text.startswith(head) and text.endswith(tail)


def _read(path: Path) -> str:
    """The text with line ends of one character, without front matter and control characters."""
    if problem := file_problem(path):
        raise ConfigError(f"{path} {problem}; name a Markdown file")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(
                f"{path} has {size:,} bytes, but at most {MAX_BYTES:,} are read; import a part"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); check the path") from None
    if b"\0" in data:
        raise ConfigError(f"{path} is a binary file; name a Markdown file, saved as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 (byte {error.start + 1} is 0x{data[error.start]:02x}); save it "
            "as UTF-8"
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return NO_TEXT.sub(" ", _FRONT_MATTER.sub("", text))
