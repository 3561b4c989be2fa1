"""Where runners of one user on one machine leave notes for each other."""

import os
import stat
import tempfile
from pathlib import Path


def own_directory(name: str) -> Path:
    """A directory of this user alone, made if need be; lost with a reboot. Raises OSError if somebody else has it."""
    parent = Path(tempfile.gettempdir()) / f"coordinator-runner-{os.getuid()}"
    for directory in (parent, parent / name):
        ensure_own(directory)
    return parent / name


def ensure_own(directory: Path) -> None:
    """Make the directory, and refuse one that somebody else has put there."""
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OSError(f"{directory} belongs to somebody else")
