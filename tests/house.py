"""Prints how the code is built: sizes, rooms, and what a new kind costs.

    python -m tests.house

A line carries code when it is neither blank nor only a comment or part of a docstring.
"""

import ast
import io
import tokenize
from pathlib import Path
from statistics import median

from pipeline.config.paths import PROJECT_ROOT
from tests.test_layers import cycles, modules

NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
KINDS = {
    "labeler": ("tests/labeling/toy_settings.py", "tests/labeling/toy_labeler.py"),
    "stage": ("tests/stages/toy_stage.py",),
    "engine": ("tests/engines/toy_settings.py", "tests/engines/toy_engine.py"),
    "training method": ("tests/training/toy_settings.py", "tests/training/toy_method.py"),
}
"""The files in which the tests add a toy of each kind; the tables take one line more."""


def code_lines(path: Path) -> int:
    """Lines of a file that carry code."""
    source = path.read_text()
    docs: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(ast.Constant(str())):
                docs |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docs)


def sizes() -> dict[Path, int]:
    """Lines of code of every file of the program."""
    files = (path for name in ("pipeline", "flows") for path in (PROJECT_ROOT / name).rglob("*.py"))
    return {path.relative_to(PROJECT_ROOT): code_lines(path) for path in sorted(files)}


def root_modules() -> list[str]:
    """Modules that lie in `pipeline/` itself."""
    names = (path.stem for path in (PROJECT_ROOT / "pipeline").glob("*.py"))
    return sorted(name for name in names if name != "__init__")


def longest_file() -> tuple[int, str]:
    """Lines of the longest file of the package, and its name."""
    lines = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    return max((count, name) for name, count in lines.items())


def main() -> None:
    """Print the figures."""
    by_file = sizes()
    rooms: dict[str, int] = {}
    for path, count in by_file.items():
        room = "/".join(path.parts[:2]) if len(path.parts) > 2 else path.parts[0]
        rooms[room] = rooms.get(room, 0) + count
    lengths = [len(path.read_text().splitlines()) for path in modules().values()]
    print(f"lines of code        {sum(by_file.values()):,} in {len(by_file)} files")
    for room, count in sorted(rooms.items(), key=lambda entry: -entry[1]):
        print(f"  {room:<26} {count:,}")
    print(f"root modules         {len(root_modules())}: {' '.join(root_modules())}")
    print(f"lines a file         median {median(lengths):g}, longest {longest_file()}")
    print(f"import cycles        {len(cycles())}")
    for kind, files in KINDS.items():
        print(f"files a new {kind} needs: {len(files)}, and a line in its table")


if __name__ == "__main__":
    main()
