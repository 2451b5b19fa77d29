"""What a disk that cannot be written says to a person."""

import errno
from pathlib import Path

from pipeline.errors import StoreError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_error(error: OSError, path: Path) -> StoreError:
    """The message for a write that failed."""
    if error.errno in FULL:
        return StoreError(
            f"no space left while writing {path}; free some disk space, then `rlaif resume`: "
            "everything finished so far is kept"
        )
    return StoreError(f"cannot write {path} ({error.strerror}); check the folder's permissions")
