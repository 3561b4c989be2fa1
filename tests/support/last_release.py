"""Last release by pyproject.toml: its code, unpacked, whose processes run beside ours."""

import os
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from runtime.settings import PREFIX
from testkit.servers import MIGRATE_WITH

ROOT = Path(__file__).resolve().parents[2]
OURS = Path(sys.executable).with_name("coordinator")
NOT_THERE = (
    "{commit}, the last release by pyproject.toml, is not in this clone: {reason}. "
    "Where history was cut off: git fetch --unshallow"
)


@dataclass(frozen=True)
class PreviousRelease:
    """Checkout of it. Not registered with git, so that a killed test leaves nothing in the clone."""

    directory: Path

    def run(self, *command: str, within: float) -> "subprocess.CompletedProcess[str]":
        """Run a Python module with its code instead of ours; our code migrates the databases."""
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.directory,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )

    def environment(self) -> dict[str, str]:
        """Return our environment without what names our paths or the servers that we use at the same time."""
        hidden = ("PYTEST_", PREFIX, "DATABASE_URL", "REDIS_URL")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        return {**kept, "PYTHONPATH": str(self.directory), MIGRATE_WITH: f"{OURS} migrate"}


def last_release() -> str:
    """Return the commit that pyproject.toml names."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return str(declared["tool"]["coordinator"]["last_release"])


def check_out(commit: str, directory: Path) -> PreviousRelease:
    """Unpack a commit. Fail with the remedy if this clone does not have it."""
    done = git("archive", commit)
    reason = done.stderr.decode(errors="replace").strip().replace("\n", " ")
    assert done.returncode == 0, NOT_THERE.format(commit=commit, reason=reason)
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(directory, filter="data")
    return PreviousRelease(directory)


def git(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run git in the clone that holds these tests."""
    command = ["/usr/bin/env", "git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=False)
