"""Whether what is installed is what requirements.lock names: what is tested is then what scripts/audit asks about."""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

LOCK: Final = Path(__file__).parent.parent / "requirements.lock"


def faults(lock: str) -> Iterator[str]:
    """Yield what the lock names for this Python and platform and is not installed in that version; more may be."""
    for line in re.findall(r"^\w.*?(?=\s*\\?$)", lock, re.MULTILINE):
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            found = None
        if found is None or not wanted.specifier.contains(found, prereleases=True):
            yield f"{wanted.name}{wanted.specifier} is locked, installed is {found or 'none'}"


if __name__ == "__main__":
    found = list(faults(LOCK.read_text()))
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))
