"""Copy of the checkout whose console a test changes, builds, and has served by processes of their own."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

from devserver import console_build
from testkit.cluster import Cluster, Process

# Packages of a web process that find the console, and those that build it.
_COPIED = ("app", "devserver", "runtime", "console")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "node_modules", ".openapi.json", ".checked", ".console-lock")


@dataclass(frozen=True)
class ConsoleCopy:
    """Another version of the console below `root`, built as the checkout's until it is changed."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> "ConsoleCopy":
        for name in _COPIED:
            shutil.copytree(console_build.ROOT / name, root / name, ignore=_LEFT_OUT)
        (root / "console" / "node_modules").symlink_to(console_build.SOURCE / "node_modules")
        return cls(root)

    @property
    def assets(self) -> Path:
        return self._target / "assets"

    @property
    def _target(self) -> Path:
        return self.root / "app" / "static" / "console"

    def change(self, name: str, old: str, new: str) -> None:
        """Replace a text that stands once in a file of console/src."""
        path = self.root / "console" / "src" / name
        text = path.read_text()
        assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new))

    def build(self) -> None:
        """Build it as `coordinator up` does: by a process of its own, into the directory that is served."""
        command = [sys.executable, "-m", "devserver.console_build"]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr

    def forget_earlier_builds(self) -> None:
        """Remove what only earlier builds have: a wheel or an image holds one build."""
        kept = console_build.files_of_newest(self._target)
        for path in [path for path in self.assets.iterdir() if path not in kept]:
            path.unlink()

    def start_web(self, cluster: Cluster, port: int, **settings: object) -> Process:
        """Start a web process that serves this copy."""
        return start_web(cluster, port, self.root, **settings)


def start_web(cluster: Cluster, port: int, code: Path | None = None, **settings: object) -> Process:
    """Start a web process on this port; tests replace it by one of another version."""
    arguments = ["web", "--host", "127.0.0.1", "--port", str(port)]
    process = cluster.start("web", arguments, settings, url=f"http://127.0.0.1:{port}", code=code)
    cluster.wait_until_ready(process)
    return process


def assets_of(url: str, client: httpx.Client | None = None) -> list[str]:
    """Return the addresses that the page of the console names."""
    answer = (client or httpx).get(f"{url}/console/", timeout=20)
    assert answer.status_code == 200, answer.text
    return [f"{url}/console/{address}" for address in re.findall(r'"(assets/[^"]+)"', answer.text)]
