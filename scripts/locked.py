"""Compare the installed packages with requirements.lock, and the partial locks with it.

Tests then run on the versions that scripts/audit checks, the image holds and scripts/up installs.
"""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).parent.parent
LOCK: Final = ROOT / "requirements.lock"
PARTS: Final = ROOT / "deploy" / "locks"
# Locks of what is installed apart (scripts/docs, Node for the console), not part of requirements.lock.
SEPARATE: Final = frozenset({"docs.lock", "console.lock"})


def faults(lock: str) -> Iterator[str]:
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


def strays(lock: str, part: str) -> Iterator[str]:
    """Yield packages that the part pins otherwise than the lock: another version, marker or hash."""
    whole = set(_entries(lock))
    for entry in _entries(part):
        if entry not in whole:
            yield f"{entry.partition(' ')[0]} is not locked like this in {LOCK.name}"


def _entries(lock: str) -> list[str]:
    return re.split(r"\n(?=\S)", lock.strip())


if __name__ == "__main__":
    whole = LOCK.read_text()
    found = list(faults(whole))
    for path in sorted(PARTS.glob("*.lock")):
        if path.name not in SEPARATE:
            found += [f"{path.name}: {stray}" for stray in strays(whole, path.read_text())]
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))
