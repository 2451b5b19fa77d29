"""The README and the guides say what is true: commands, paths, links, examples."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from pipeline.cli.app import app, main
from pipeline.config.paths import PROJECT_ROOT
from pipeline.config.yaml_file import load_yaml
from pipeline.constitution import Constitution
from tests.test_layers import LAYERS

README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*sorted(PROJECT_ROOT.glob("*.md")), *sorted((PROJECT_ROOT / "docs").glob("*.md"))]
PREFECT = {"work-pool create", "--no-prompt deploy", "worker start", "deployment run"}
"""The commands of Prefect that the pages use; flows/test_deployments.py runs what they need."""


def blocks(text: str, language: str) -> list[str]:
    """Fenced blocks of one language."""
    parts = re.split(r"^```(.*)\n", text, flags=re.M)
    # Text, opening fence's language, block, closing fence's nothing, text, ...
    return [block for name, block in zip(parts[1::4], parts[2::4], strict=True) if name == language]


def commands(path: Path) -> list[str]:
    """Command lines of a page's bash blocks, without comments."""
    return [
        " ".join(shlex.split(line, comments=True, posix=False))
        for block in blocks(path.read_text(encoding="utf-8"), "bash")
        for line in block.replace("\\\n", " ").splitlines()
        if line.split("#")[0].strip()
    ]


ALL = [(page, line) for page in PAGES for line in commands(page)]
RLAIF = [line.partition("bin/rlaif ")[2] for _, line in ALL if "bin/rlaif " in line]
MADE = {line.split()[1] for line in RLAIF if line.startswith("init ")}
"""Folders that a command of a page makes; cli/test_init.py checks and runs what is in them."""


@pytest.mark.parametrize("line", sorted(set(RLAIF)))
def test_rlaif_command_parses(line: str) -> None:
    words = shlex.split(line.removesuffix(')"'))
    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    command.make_context(words[0], words[1:])
    for word in words[1:]:
        if "/" in word and word.partition("/")[0] not in MADE:
            assert (PROJECT_ROOT / word).exists(), word


@pytest.mark.parametrize("line", sorted({line for _, line in ALL if line.startswith("make ")}))
def test_make_target_exists(line: str) -> None:
    done = subprocess.run(
        ["make", "-n", *shlex.split(line)[1:]], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_prefect_commands_are_known() -> None:
    found = {line.partition("bin/prefect ")[2] for _, line in ALL if "bin/prefect " in line}
    assert found
    for line in found:
        assert " ".join(line.split()[:2]) in PREFECT, line


def test_modules_can_be_run() -> None:
    for page, line in ALL:
        for name in re.findall(r"-m ([\w.]+)", line):
            if name.split(".")[0] in ("pipeline", "flows", "benchmarks", "models"):
                path = PROJECT_ROOT / name.replace(".", "/")
                assert path.with_suffix(".py").exists() or path.is_dir(), f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_page_is_finished(page: Path) -> None:
    assert not re.search(r"<!--|\b(TODO|TBD|FIXME)\b", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_table_of_layers_is_true(name: str) -> None:
    page = (PROJECT_ROOT / name).read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d+ \| (.*?) \|", page, flags=re.M)
    assert [tuple(re.findall(r"`(\w+)`", row)) for row in rows] == [*LAYERS, ("flows",)]


def test_architecture_describes_every_room() -> None:
    page = (PROJECT_ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (PROJECT_ROOT / "pipeline").glob("*/__init__.py")}
    assert set(re.findall(r"\*\*`(\w+)/`\*\*", page)) == rooms


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_paths_exist(page: Path) -> None:
    """Paths of code that a page names, such as `pipeline/run/phases.py`."""
    text = page.read_text(encoding="utf-8")
    for path in re.findall(
        r"`((?:pipeline|flows|tests|models|benchmarks|requirements)/[\w./-]+)`", text
    ):
        assert (PROJECT_ROOT / path).exists(), f"{page.name} names {path}"


def test_readme_tree_is_complete() -> None:
    tree = next(b for b in blocks(README, "") if b.startswith("pipeline/ "))
    named = {line.split()[0].rstrip("/") for line in tree.splitlines() if not line.startswith(" ")}
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT_ROOT, capture_output=True, text=True)
    found = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    assert named == {name for name in found if not name.startswith(".") and name != "README.md"}


def test_readme_constitution_loads(tmp_path: Path) -> None:
    (example,) = [b for b in blocks(README, "yaml") if "principles:" in b]
    path = tmp_path / "kind.yaml"
    path.write_text(example)
    assert load_yaml(path, Constitution, what="constitution").principles[0].id == "kind-01"


def test_readme_error_is_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = [b for b in blocks(README, "yaml") if "principles:" in b]
    value = yaml.safe_load(example)
    value["principles"] *= 2
    monkeypatch.chdir(tmp_path)
    Path("kind.yaml").write_text(yaml.safe_dump(value))
    monkeypatch.setattr("sys.argv", ["rlaif", "check", "kind.yaml"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (shown,) = [b for b in blocks(README, "") if b.startswith("rlaif: ")]
    assert capsys.readouterr().err == shown


def test_every_guide_is_on_the_site_and_in_the_index() -> None:
    """`make docs` builds the pages of requirements/mkdocs.yml; the index leads to each."""
    text = (PROJECT_ROOT / "requirements/mkdocs.yml").read_text(encoding="utf-8")
    index = (PROJECT_ROOT / "docs/index.md").read_text(encoding="utf-8")
    names = {page.name for page in (PROJECT_ROOT / "docs").glob("*.md")}
    listed = {
        page
        for entry in yaml.safe_load(text)["nav"]
        for value in entry.values()
        for page in ([value] if isinstance(value, str) else [p for e in value for p in e.values()])
    }
    assert listed == names
    assert set(re.findall(r"\((\w+\.md)", index)) == names - {"index.md"}
