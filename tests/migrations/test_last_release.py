"""Run the last release on our schema: during a deployment its replicas serve beside ours."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest

from models.schema.migrate import newest_revision
from runtime.settings import PREFIX
from testkit.servers import MIGRATE_WITH, new_directory

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
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )

    def _environment(self) -> dict[str, str]:
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


# Files of that release: runs over HTTP, dispatch, the feed, processes of its own.
ITS_TESTS = [
    "tests/integration/test_dispatch.py",
    "tests/integration/test_http_feed.py",
    "tests/integration/test_http_runs.py",
    "tests/integration/test_cluster_support.py",
]


@pytest.fixture
def release(scratch: Path) -> PreviousRelease:
    return check_out(last_release(), new_directory(scratch, "release"))


# Starts servers of its own: a minute on an idle machine.
@pytest.mark.timeout(600)
def test_tests_of_the_last_release_pass_on_our_schema(release: PreviousRelease) -> None:
    """Run its code and tests on databases made by our `coordinator migrate`."""
    done = release.run("pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *ITS_TESTS, within=570)
    last = done.stdout.strip().rpartition("\n")[2]

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"[1-9]\d* passed", last), last


def test_code_of_the_last_release_runs_on_our_schema(release: PreviousRelease, empty_database_url: str) -> None:
    """Prove that the test above did not run our code."""
    (release.directory / "whose.py").write_text(
        "import app, cli, models\n"
        "from tests.support import servers\n"
        "print(app.__file__, cli.__file__, models.__file__, servers.__file__, sep='\\n', flush=True)\n"
        f"servers.migrate({empty_database_url!r})\n"
    )
    done = release.run("whose", within=60)
    *files, said = done.stdout.splitlines()

    assert done.returncode == 0, done.stderr
    assert len(files) == 4
    assert [file for file in files if not file.startswith(f"{release.directory}/")] == []
    assert said == f"schema migrated from nothing to {newest_revision()}"


def test_clone_without_the_commit_is_an_error(tmp_path: Path) -> None:
    """Do not pass without having run anything."""
    with pytest.raises(AssertionError, match="git fetch --unshallow"):
        check_out("0" * 40, tmp_path)


def test_last_release_is_part_of_our_history() -> None:
    """Name a whole commit id, which means the same in every clone."""
    commit = last_release()
    done = git("merge-base", "--is-ancestor", commit, "HEAD")

    assert re.fullmatch(r"[0-9a-f]{40}", commit)
    assert done.returncode == 0, done.stderr
