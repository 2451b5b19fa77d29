"""Import of published shapes, with texts of our own in their frames."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.constitution import load_constitution
from pipeline.constitution.importing import SCHEMA_LINE, import_constitution, pair_comparisons
from pipeline.constitution.lint import lint_constitution
from pipeline.errors import ConfigError

CRITIQUES = {
    f"harmful{n}": {
        "prompt": [f"\n\nCritiqueRequest: Find the {word} parts.\n\nCritique:"],
        "edit_request": f"\n\nRevisionRequest: Remove the {word} parts.\n\nRevision:",
    }
    for n, word in enumerate(("rude", "false"))
}
COMPARISONS = ["\nChoose the less false response. Options:", "\nWhich is less rude? Options:"]
SWARM = {
    "constitutions": [{"critic": "Is it rude?", "revision": "Make it polite."}],
    "system_chat": [[{"role": "user", "content": "x"}]],
}


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_paper_files_are_joined_by_words(tmp_path: Path) -> None:
    """The word "rude" joins entry 0 with comparison 1, "false" entry 1 with comparison 0."""
    paths = [write(tmp_path / "a.json", CRITIQUES), write(tmp_path / "b.json", COMPARISONS)]
    imported = import_constitution(paths, "cai")
    first, second = imported.constitution.principles
    assert (first.id, first.critique_request) == ("harmful0", "Find the rude parts.")
    assert first.revision_request == "Remove the rude parts."
    assert first.comparison_request == "Which is less rude?"
    assert second.comparison_request == "Choose the less false response."
    assert imported.constitution.source == "imported from a.json and b.json"
    notes = " ".join(imported.notes)
    assert "2 critiques and 2 comparisons are separate lists" in notes
    assert "draws are as published" in notes


def test_verbatim_keeps_the_frames(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.json", CRITIQUES), write(tmp_path / "b.json", COMPARISONS)]
    first = import_constitution(paths, "cai", verbatim=True).constitution.principles[0]
    assert first.critique_request == "CritiqueRequest: Find the rude parts.\n\nCritique:"
    assert first.comparison_request == "Which is less rude? Options:"


def test_swarm_file_derives_the_comparison(tmp_path: Path) -> None:
    imported = import_constitution([write(tmp_path / "a.json", SWARM)], "swarm")
    (principle,) = imported.constitution.principles
    assert (principle.id, principle.critique_request) == ("principle-01", "Is it rude?")
    assert principle.comparison_request == (
        'Which response better follows this request: "Make it polite."?'
    )
    assert any("left out of a.json: system_chat" in note for note in imported.notes)
    bare = import_constitution([write(tmp_path / "b.json", SWARM["constitutions"])], "swarm")
    assert bare.constitution.principles == imported.constitution.principles


def test_comparisons_alone_quote_themselves(tmp_path: Path) -> None:
    imported = import_constitution([write(tmp_path / "a.json", COMPARISONS)], "rl")
    principle = imported.constitution.principles[1]
    assert principle.comparison_request == "Which is less rude?"
    assert '"Which is less rude?"' in principle.critique_request
    assert '"Which is less rude?"' in principle.revision_request


def test_written_file_loads_again(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.json", CRITIQUES), write(tmp_path / "b.json", COMPARISONS)]
    imported = import_constitution(paths, "cai")
    target = tmp_path / "out.yaml"
    imported.write(target)
    assert target.read_text(encoding="utf-8").splitlines()[0] == SCHEMA_LINE
    assert load_constitution(target) == imported.constitution
    with pytest.raises(ConfigError, match="exists already"):
        imported.write(target)


def test_unequal_lists_use_all_entries() -> None:
    """Three critiques, two comparisons: each critique once, a comparison twice."""
    pairing = pair_comparisons(["rude", "false", "long"], ["less false", "less rude"])
    assert pairing.pairs == ((0, 1), (1, 0), (2, 0))
    assert not pairing.draws_as_published
    assert "not exactly as published" in pairing.notes()[1]
    turned = pair_comparisons(["rude"], ["less false", "less rude"])
    assert turned.pairs == ((0, 0), (0, 1))
    assert not pair_comparisons(["rude", "false"], ["x", "y", "z"]).draws_as_published


def test_repeated_entries_get_their_own_id(tmp_path: Path) -> None:
    one = {"harmful0": CRITIQUES["harmful0"]}
    paths = [write(tmp_path / "a.json", one), write(tmp_path / "b.json", COMPARISONS)]
    ids = [p.id for p in import_constitution(paths, "cai").constitution.principles]
    assert ids == ["harmful0", "harmful0-2"]


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1},
        [1],
        [],
        {},
        {"a": {"prompt": ["x", "y"], "edit_request": "z"}},
        "text",
        [{"critic": "x"}],
        {"constitutions": []},
        ["\n Options:"],
        ["x", {"critic": "x"}],
    ],
)
def test_unknown_shape_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"a\.json has none of the known shapes"):
        import_constitution([write(tmp_path / "a.json", value)], "x")


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", COMPARISONS)
    with pytest.raises(ConfigError, match="same kind of principles as another file"):
        import_constitution([path, path], "x")
    with pytest.raises(ConfigError, match="does not exist"):
        import_constitution([tmp_path / "none.json"], "x")
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        import_constitution([path], "x")
    with pytest.raises(ConfigError, match="no file to import"):
        import_constitution([], "x")


FOUND = [
    "Prefer the answer that cites a law",
    "Prefer the answer that has more emojis",
    "Prefer the answer that warns of danger",
    "Prefer the answer that ends with a joke",
]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps(FOUND)),
        ("a.json", json.dumps("\n".join(f"{i}. {t}" for i, t in enumerate(FOUND, 1)))),
        ("a.json", json.dumps({str(i): t for i, t in enumerate(FOUND)})),
        ("a.txt", "\n\n".join(FOUND) + "\n"),
    ],
)
def test_principles_found_from_data(tmp_path: Path, name: str, text: str) -> None:
    """The frame that all entries share, and that of the importer, make no near-duplicates."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    imported = import_constitution([path], "found")
    assert [p.comparison_request for p in imported.constitution.principles] == FOUND
    imported.write(tmp_path / "found.yaml")
    findings = lint_constitution(tmp_path / "found.yaml").findings
    assert [f for f in findings if "duplicate" in f.code] == []


def test_pipe_is_refused(tmp_path: Path) -> None:
    """It would be waited for without an end."""
    os.mkfifo(tmp_path / "list.json")
    with pytest.raises(ConfigError, match=r"cannot be read as JSON .*not a regular file"):
        import_constitution([tmp_path / "list.json"], "x")
