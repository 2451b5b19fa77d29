"""Where the files that a recipe names are: below the working directory, or below the project
root. What cannot be a path, or cannot be read as a file, is one line.
"""

import errno
import os
import stat
from pathlib import Path

from pipeline.errors import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parent.parent.parent
"""The checkout: the folder with constitutions/, prompts/, flows/ and models/."""


def resolve_path(path: Path) -> Path:
    """An absolute path: as given, else below the working directory, else below the project root.

    Raises:
        ConfigError: no file can have this path: NUL, too long, a loop of links.
    """
    try:
        if path.is_absolute() or path.exists():
            return path.resolve()
        below_root = PROJECT_ROOT / path
        return below_root if below_root.exists() else path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{shown_path(path)} cannot be a path ({path_problem(error)}); correct it"
        ) from None


def file_problem(path: Path) -> str | None:
    """Why `path` cannot be read as a file, or None. Opens nothing: a fifo would never end."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be read ({path_problem(error)})"
    if stat.S_ISDIR(mode):
        return "is a folder, but a file is needed"
    if not stat.S_ISREG(mode):
        return "is not a regular file (but a pipe, socket or device)"
    return None if os.access(path, os.R_OK) else "cannot be read (Permission denied)"


def plain_bytes(path: Path) -> bytes:
    """The bytes of a regular file. Raises OSError for others: a pipe may never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_bytes()


def path_problem(error: Exception) -> str:
    """What the system says of a path, without the path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error).partition(":")[0]


def shown_path(path: Path | str) -> str:
    """A path for a message: of a very long one both ends, quoted where one cannot be printed."""
    text = str(path)
    text = text if len(text) <= 200 else f"{text[:60]}...{text[-137:]}"
    return text if text.isprintable() else repr(text)
