"""Import of a document: headings become principles, whatever else is in it."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.constitution import load_constitution
from pipeline.constitution.lint import lint_constitution
from pipeline.constitution.prose import MAX_PRINCIPLES, import_prose, sections_of
from pipeline.errors import ConfigError
from tests.cli.commands import Rlaif

DOCUMENT = """\
---
author: us
---
# What we stand for

We write for people
who are in a hurry.

## Honesty

### Say what is **true**

Trust is lost once.

- so is time

> ### no heading of ours

### Admit `doubt`

Kindness
--------

Words hurt.
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "stand.md"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_headings_are_principles_and_their_text_is_the_rationale(tmp_path: Path) -> None:
    imported = import_prose(write(tmp_path, DOCUMENT), "ours")
    constitution = imported.constitution
    assert constitution.description == "We write for people who are in a hurry."
    assert constitution.source == "imported from stand.md"
    assert [(p.id, p.tags) for p in constitution.principles] == [
        ("say-what-is-true", ("honesty",)),
        ("admit-doubt", ("honesty",)),
        ("kindness", ()),
    ]
    true, doubt, kind = constitution.principles
    assert true.rationale == "Trust is lost once.\n\n- so is time\n\n> ### no heading of ours"
    assert (doubt.rationale, kind.rationale) == ("", "Words hurt.")
    assert true.comparison_request == (
        'Which response better follows this principle: "Say what is true"?'
    )
    assert any("are tags: Honesty" in note for note in imported.notes)
    imported.write(tmp_path / "ours.yaml")
    assert load_constitution(tmp_path / "ours.yaml") == constitution
    assert "    Trust is lost once.\n\n    - so" in (tmp_path / "ours.yaml").read_text("utf-8")


def test_lint_lists_the_drafts_that_are_left(tmp_path: Path) -> None:
    out = tmp_path / "ours.yaml"
    imported = import_prose(write(tmp_path, DOCUMENT), "ours")
    imported.write(out)
    report = lint_constitution(out)
    assert report.num_errors == 0 and {f.code for f in report.findings} == {"draft"}
    assert len(report.findings) == 9
    draft = imported.constitution.principles[2].comparison_request
    out.write_text(out.read_text("utf-8").replace(draft, "Which response is kinder?"))
    assert len(lint_constitution(out).findings) == 8


def test_names_differ_and_other_alphabets_get_numbers(tmp_path: Path) -> None:
    text = "## Be kind\na\n## Be kind!\nb\n## 诚实\nc\n## Be kind 2\nd\n##\ne\n"
    imported = import_prose(
        write(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()), "x"
    )
    principles = imported.constitution.principles
    assert [p.id for p in principles] == ["be-kind", "be-kind-2", "principle-03", "be-kind-2-2"]
    assert principles[3].rationale == "d\n##\ne"


@pytest.mark.parametrize(
    "content, problem",
    [
        ("Only prose.\n\n    # code\n", "has no heading"),
        ("", "has no heading"),
        (b"# a\xff", "is not UTF-8 \\(byte 4 is 0xff\\)"),
        ("# a".encode("utf-16"), "is a binary file"),
        (b"# a\nb" * 2_500_000, "has 12,500,000 bytes, but at most 1,000,000"),
        ("# a\nb\n" * (MAX_PRINCIPLES + 1), "has 201 headings, but at most 200"),
    ],
    ids=["prose", "empty", "latin", "utf16", "large", "many"],
)
def test_unusable_documents_are_one_line(
    tmp_path: Path, content: str | bytes, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as error:
        import_prose(write(tmp_path, content), "x")
    assert "\n" not in str(error.value) and "stand.md" in str(error.value)


def test_missing_documents_and_folders_are_one_line(tmp_path: Path) -> None:
    for name in ("nowhere.md", "."):
        with pytest.raises(ConfigError, match="name a Markdown file"):
            import_prose(tmp_path / name, "x")


PIECES = st.sampled_from(
    ["# ", "## ", "### a", "\n", "\n\n", "---", "===", "```", "> ", "- ", "    ", "<b>", "<!--",
     '"', "'", ": ", "{}", "{{", "\\", "`", "\t", "\r", "\x0c", "\x1b", "\x85", "\u2028", "😀", "é",
     "null", "true", "[x]: y", "|", "%", "&a", "*a"]
) | st.text(max_size=8)  # fmt: skip


@given(st.lists(PIECES, max_size=40).map("".join))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_document_gives_a_file_that_loads_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.mktemp("prose")
    path = folder / "any.md"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        imported = import_prose(path, "any")
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1
        return
    imported.write(folder / "any.yaml")
    assert load_constitution(folder / "any.yaml") == imported.constitution


@given(st.lists(PIECES, max_size=40).map("".join))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_no_text_of_a_document_is_lost(text: str) -> None:
    """What is kept are pieces of the document, in its order."""
    flat = text.replace("\r", "\n").replace("\0", "")
    before, sections = sections_of(flat)
    kept = [before, *(section.text for section in sections)]
    assert sum(map(len, kept)) <= len(flat)
    place = 0
    for part in kept:
        place = flat.index(part, place) + len(part)


def test_command_imports_one_document_and_overwrites_nothing(rlaif: Rlaif, tmp_path: Path) -> None:
    document, out = write(tmp_path, DOCUMENT), tmp_path / "ours.yaml"
    command = ("constitution", "import", str(document), "--name", "ours", "--out", str(out))
    assert "3 principles" in rlaif(*command).out
    before = out.read_bytes()
    again, two = rlaif(*command), rlaif(*command[:3], document, *command[3:])
    assert again.code == two.code == 2 and out.read_bytes() == before
    assert "exists already" in again.err and "is imported alone" in two.err


@pytest.mark.parametrize("name", ["", "two\nlines", "x" * 201], ids=["blank", "lines", "long"])
def test_names_that_are_none_are_one_line(rlaif: Rlaif, tmp_path: Path, name: str) -> None:
    published = tmp_path / "swarm.json"
    published.write_text('{"constitutions": [{"critic": "Is it rude?", "revision": "Mend it."}]}')
    out = tmp_path / "out.yaml"
    for path in (write(tmp_path, DOCUMENT), published):
        ended = rlaif("constitution", "import", path, "--name", name, "--out", out)
        assert ended.code == 2 and ended.err.startswith("rlaif: --name cannot be used"), ended.err
        assert len(ended.err.splitlines()) == 1 and not out.exists()


def test_id_that_is_too_long_is_one_line(rlaif: Rlaif, tmp_path: Path) -> None:
    published = tmp_path / "paper.json"
    entry = {"prompt": ["CritiqueRequest: Is it rude?"], "edit_request": "Mend it."}
    published.write_text(json.dumps({"x" * 101: entry}))
    ended = rlaif("constitution", "import", published, "--name", "n", "--out", tmp_path / "o.yaml")
    assert ended.code == 2 and "the id of a principle in" in ended.err, ended.err
