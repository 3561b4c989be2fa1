import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from benchmarks.figures import Figures
from devserver.supervisor import ROOT

LOCK: Final = "requirements.lock"
GIT: Final = ("/usr/bin/env", "git")
# A row that is ended stops its servers and removes its directory.
_END_SECONDS: Final = 60


class NotUsable(Exception):
    """Raised for a revision that does not exist or whose benchmarks do not run; the message says which."""


@dataclass(frozen=True, slots=True)
class Version:
    name: str
    directory: Path
    python: Path

    def rows(self) -> list[str]:
        listed = self._run(["--list"], capture_output=True)
        if listed.returncode:
            raise NotUsable(f"{self.name} has no rows: {listed.stderr.decode(errors='replace').strip()[-300:]}")
        return [line.split()[0] for line in listed.stdout.decode().splitlines() if line.strip()]

    def measure(self, row: str, *, quick: bool) -> Figures | None:
        """Measure a row once; None if it failed: it has printed the reason."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "figures.json"
            command = [row, "--repeat", "1", "--json", str(path), *(["--quick"] if quick else [])]
            if self._run(command, stdout=subprocess.DEVNULL).returncode or not path.exists():
                return None
            figures: Figures = orjson.loads(path.read_bytes())["measured"][row]["repetitions"][0]
            return figures

    def child_environment(self) -> dict[str, str]:
        """Return the environment in which its packages come before those that its Python was installed for."""
        return {**os.environ, "PYTHONPATH": str(self.directory)}

    def _run(
        self, arguments: Sequence[str], *, capture_output: bool = False, stdout: int | None = None
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run the checkout's benchmarks; if this process is interrupted, end them as Ctrl-C does and wait."""
        pipe = subprocess.PIPE if capture_output else None
        with subprocess.Popen(
            [self.python, "-m", "benchmarks", *arguments],
            stdout=pipe or stdout,
            stderr=pipe,
            cwd=self.directory,
            env=self.child_environment(),
            # Ctrl-C is for this process alone: a second signal would interrupt the child's clearing up.
            start_new_session=True,
        ) as child:
            try:
                output, errors = child.communicate()
            except BaseException:
                child.send_signal(signal.SIGTERM)
                try:
                    child.wait(_END_SECONDS)
                except subprocess.TimeoutExpired:
                    child.kill()
                raise
        return subprocess.CompletedProcess(child.args, child.returncode, output, errors)


def here() -> Version:
    return Version("working tree", ROOT, Path(sys.executable))


def commit_of(revision: str) -> str:
    found = _git("rev-parse", "--verify", "--quiet", "--short", f"{revision}^{{commit}}", check=False)
    if found.returncode:
        raise NotUsable(f"no such revision: {revision}")
    return found.stdout.decode().strip()


@contextmanager
def checked_out(commit: str) -> Iterator[Version]:
    """Check a commit out into a temporary worktree, and remove it at the end.

    It uses this environment if its lock is the same, else one of its own, installed by its own scripts/setup.sh.
    """
    above = Path(tempfile.mkdtemp(prefix="coordinator-compare-"))
    directory = above / commit
    try:
        _git("worktree", "add", "--quiet", "--detach", str(directory), commit)
        yield Version(commit, directory, _python(directory))
    finally:
        _git("worktree", "remove", "--force", str(directory), check=False)
        shutil.rmtree(above, ignore_errors=True)
        _git("worktree", "prune", check=False)


def _python(directory: Path) -> Path:
    if same_lock(directory, ROOT):
        return Path(sys.executable)
    subprocess.run(
        ["/usr/bin/env", "bash", "-c", 'source "$0"', directory / "scripts" / "setup.sh"], check=True, stdout=sys.stderr
    )
    return directory / ".venv" / "bin" / "python"


def same_lock(one: Path, other: Path) -> bool:
    paths = one / LOCK, other / LOCK
    return all(path.exists() for path in paths) and paths[0].read_bytes() == paths[1].read_bytes()


def _git(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([*GIT, "-C", ROOT, *arguments], check=check, capture_output=True)
