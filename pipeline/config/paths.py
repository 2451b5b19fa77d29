"""Where the files that a recipe names are: below the working directory, or below the project
root.
"""

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent.parent
"""The checkout: the folder with constitutions/, prompts/, flows/ and models/."""


def resolve_path(path: Path) -> Path:
    """An absolute path: as given, else below the working directory, else below the project root."""
    if path.is_absolute() or path.exists():
        return path.resolve()
    below_root = PROJECT_ROOT / path
    return below_root if below_root.exists() else path.resolve()
