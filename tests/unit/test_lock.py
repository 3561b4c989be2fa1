"""The lock: what pyproject.toml asks for, pinned, hashed, from nowhere in particular."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PINNED = dict(re.findall(r"^([\w.-]+)==(\S+)", LOCK, re.MULTILINE))


def declared() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def wanted() -> list[Requirement]:
    everything = declared()
    project = everything["project"]
    extras = [text for extra in project["optional-dependencies"].values() for text in extra]
    texts = [
        *project["dependencies"],
        *extras,
        *everything["dependency-groups"]["dev"],
        *everything["build-system"]["requires"],
    ]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("requirement", wanted(), ids=str)
def test_the_lock_holds_what_the_project_declares(requirement: Requirement) -> None:
    """After a change of dependencies scripts/lock has been run; the build backend is pinned like all else."""
    version = PINNED[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version, prereleases=True)


def test_the_lock_names_no_index_host_or_path() -> None:
    """It serves on every machine, from whatever mirror that is set up for."""
    lines = [line for line in LOCK.splitlines() if not line.strip().startswith("--hash=sha256:")]
    assert [line for line in lines if re.search(r"https?:|file:|(^|\s)-{1,2}[a-z]| @ |/", line)] == []


def test_every_version_has_hashes() -> None:
    """Nothing is installed that was not there when the lock was made."""
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(entries) == len(PINNED)
    assert [entry.split("==")[0] for entry in entries if "--hash=sha256:" not in entry] == []
