"""Imports point down, in no circle, and a light import stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from pipeline.config.paths import PROJECT_ROOT

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "types", "ids"),
    ("records", "soft_labels", "stats"),
    ("config", "checks", "constitution", "prompting", "store"),
    ("engines",),
    ("stages",),
    ("labeling", "data", "sources", "workers"),
    ("audits", "training"),
    ("evaluation",),
    ("report", "progress", "review"),
    ("run", "impact"),
    ("judge_eval", "discover", "sweep"),
    ("prefect_server", "cli"),
)
"""Lowest first; a module may import its own layer and those before it."""
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}
HEAVY = (
    "torch",
    "vllm",
    "trl",
    "datasets",
    "transformers",
    "prefect",
    "datasketch",
    "scipy",
    "ray",
)

MODEL_LIBRARIES = {
    "pipeline.training.worker": {"torch", "transformers", "trl", "peft", "accelerate", "datasets"},
    "pipeline.engines.vllm": {"torch", "transformers", "vllm"},
    "pipeline.data.prompt_sources": {"datasets"},
}
"""Who may import the libraries that load models or data sets, at any time."""


def modules() -> dict[str, Path]:
    """Dotted name of every module of the package."""
    found = {}
    for path in sorted((PROJECT_ROOT / "pipeline").rglob("*.py")):
        parts = path.relative_to(PROJECT_ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text())


def statements(node: ast.AST, at_import_time: bool) -> Iterator[ast.AST]:
    """All statements below a node; optionally without those in functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield child
            if not (at_import_time and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)):
                yield from statements(child, at_import_time)


def imports(path: Path, known: dict[str, Path], *, at_import_time: bool = False) -> set[str]:
    """Modules of the package that a file imports; optionally only outside of functions."""
    found: set[str] = set()
    for node in statements(tree_of(path), at_import_time):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in inner}
    return {name for name in found if name.split(".")[0] in ("pipeline", "flows")}


def level(name: str) -> int:
    """Layer of a module; the flows are above all."""
    package, _, rest = name.partition(".")
    return LEVELS[rest.split(".")[0]] if package == "pipeline" else len(LAYERS)


def test_every_module_has_a_layer() -> None:
    parts = {name.split(".")[1] for name in modules() if "." in name}
    assert parts == set(LEVELS)


def test_imports_point_down() -> None:
    known = modules()
    del known["pipeline"]  # Its names are looked up when they are used.
    wrong = []
    for name, path in known.items():
        first = imports(path, known, at_import_time=True)
        for other in imports(path, known):
            # The command line may call a flow, but must not need Prefect to be loaded.
            if level(other) > level(name) and (other in first or not other.startswith("flows")):
                wrong.append(f"{name} (layer {level(name)}) imports {other} (layer {level(other)})")
    assert not wrong, "\n".join(wrong)


def cycles() -> list[list[str]]:
    """One circle of imports, if there is any, as the names of its modules."""
    known = modules()
    graph = {name: imports(path, known, at_import_time=True) for name, path in known.items()}
    # A package's __init__ gathers its modules, and each module's import loads it first.
    for name, others in graph.items():
        graph[name] = {o for o in others if o != name and not name.startswith(f"{o}.")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [error.args[1]]
    return []


def test_modules_form_no_circle() -> None:
    assert not cycles()


def test_root_holds_what_every_room_uses() -> None:
    root = {path.stem for path in (PROJECT_ROOT / "pipeline").glob("*.py")} - {"__init__"}
    assert root == {"errors", "types", "ids", "records", "soft_labels", "stats"}


def test_lowest_layer_needs_no_package() -> None:
    allowed = set(sys.stdlib_module_names) | {"pipeline"}
    for name in LAYERS[0]:
        for node in ast.walk(tree_of(PROJECT_ROOT / "pipeline" / f"{name}.py")):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] in allowed
            elif isinstance(node, ast.Import):
                assert all(alias.name.split(".")[0] in allowed for alias in node.names)


def test_import_stays_light() -> None:
    """Checking a recipe and resuming a finished run load no model and no orchestrator."""
    names = ("pipeline", "pipeline.engines", "pipeline.run.start", "pipeline.run.phases")
    code = f"import sys, {', '.join(names)}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT_ROOT
    )
    assert done.stdout.strip() == "[]"


def test_training_libraries_stay_in_their_folders() -> None:
    """Torch is needed only where a model is loaded: in the training process and for vLLM."""
    wrong = []
    for name, path in modules().items():
        allowed = next((v for k, v in MODEL_LIBRARIES.items() if name.startswith(k)), set())
        libraries = outside_packages(path) & set().union(*MODEL_LIBRARIES.values())
        wrong += [f"{name} imports {library}" for library in sorted(libraries - allowed)]
    assert not wrong, "\n".join(wrong)


def outside_packages(path: Path) -> set[str]:
    """Packages that a file imports, anywhere in it."""
    packages = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            packages.add(node.module.split(".")[0])
    return packages


def test_files_stay_short() -> None:
    long = {
        str(path.relative_to(PROJECT_ROOT)): lines
        for path in modules().values()
        if (lines := len(path.read_text().splitlines())) > 450
    }
    assert not long


def test_every_file_tells_its_story() -> None:
    silent = [name for name, path in modules().items() if not ast.get_docstring(tree_of(path))]
    assert not silent
