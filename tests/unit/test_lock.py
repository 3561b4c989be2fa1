"""Check that the lock pins and hashes all that pyproject.toml declares, and names no index."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts import locked

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
SEPARATE_LOCKS = [
    ("scripts/audit.lock", "audit"),
    ("deploy/locks/docs.lock", "docs"),
    ("deploy/locks/console.lock", "console"),
]
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
def test_lock_holds_declared_dependencies(requirement: Requirement) -> None:
    """Run scripts/lock after a change of dependencies; the build backend is pinned like the rest."""
    pinned = PINNED[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pinned, prereleases=True)


def test_lock_names_no_index_host_or_path() -> None:
    lines = [line for line in LOCK.splitlines() if not line.strip().startswith("--hash=sha256:")]
    assert [line for line in lines if re.search(r"https?:|file:|(^|\s)-{1,2}[a-z]| @ |/", line)] == []


def test_every_version_has_hashes() -> None:
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(entries) == len(PINNED)
    assert [entry.split("==")[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_installed_packages_are_compared_with_the_lock() -> None:
    """scripts/check reports other versions and missing packages, but not packages of other Pythons."""
    installed = version("pytest")
    lock = f"""\
        pytest=={installed} ; sys_platform == 'darwin' or sys_platform == 'linux' \\
            --hash=sha256:00
        ruff==0.0.1 \\
            --hash=sha256:00
        never-was==1 ; python_full_version >= '3.11' \\
            --hash=sha256:00
        never-was-either==1 ; python_full_version < '3' \\
            --hash=sha256:00
        """
    assert list(locked.faults(dedent(lock))) == [
        f"ruff==0.0.1 is locked, installed is {version('ruff')}",
        "never-was==1 is locked, installed is none",
    ]


def test_part_with_another_version_or_hash_is_found() -> None:
    """A part not regenerated after a change of the lock would install untested versions."""
    lock = "a==1 \\\n    --hash=sha256:00\nb==2 ; python_full_version < '3.12' \\\n    --hash=sha256:11\n"
    assert list(locked.strays(lock, lock.partition("b==")[0])) == []
    assert list(locked.strays(lock, lock.replace("a==1", "a==2"))) == [
        "a==2 is not locked like this in requirements.lock"
    ]
    assert list(locked.strays(lock, lock.replace("11", "12"))) == ["b==2 is not locked like this in requirements.lock"]


@pytest.mark.parametrize(("name", "group"), SEPARATE_LOCKS)
def test_separate_lock_is_hashed_and_agrees_with_other(name: str, group: str) -> None:
    """A separate lock may hold more; shared packages have one version."""
    text = (ROOT / name).read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))
    assert all("--hash=sha256:" in entry for entry in entries)
    assert {name: PINNED.get(name, found) for name, found in pinned.items()} == pinned
    for requirement in map(Requirement, declared()["dependency-groups"][group]):
        assert requirement.specifier.contains(pinned[requirement.name], prereleases=True)


def test_audit_reads_every_lock() -> None:
    """Ask the patterns of the script, which then finds a new lock by itself."""
    patterns = re.findall(r"^for lock in ([^;]+);", (ROOT / "scripts/audit").read_text(), re.MULTILINE)[0].split()
    read = {path for pattern in patterns for path in ROOT.glob(pattern)}
    hidden = re.compile(r"(^|/)\.|node_modules/")
    assert read == {path for path in ROOT.rglob("*.lock") if not hidden.search(str(path.relative_to(ROOT)))}
