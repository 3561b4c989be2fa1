import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from benchmarks.peers.roster import Peer
from runtime.processes import locked

REQUIREMENTS: Final = Path(__file__).with_name("requirements")
INSTALL_SECONDS: Final = 900
_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==(\S+)$", re.MULTILINE)


class NotInstalled(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Environment:
    directory: Path

    @property
    def python(self) -> Path:
        return self.directory / "bin" / "python"

    @property
    def path(self) -> str:
        return f"{self.directory / 'bin'}:{self.directory / 'node_modules' / '.bin'}"


def installed(peer: Peer) -> Environment:
    files = _files(peer)
    version = ".".join(map(str, sys.version_info[:2]))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    directory = _cache() / f"{peer.name}-{version}-{digest}"
    with locked(directory.with_name(f"{directory.name}.lock"), wait=True):
        if not (directory / "complete").exists():
            shutil.rmtree(directory, ignore_errors=True)
            _install(directory, files)
            (directory / "complete").touch()
    return Environment(directory)


def versions(peer: Peer) -> str:
    pins = pinned("\n".join(file.read_text() for file in _files(peer) if file.suffix == ".txt"))
    for file in _files(peer):
        if file.suffix == ".json":
            pins.update(orjson.loads(file.read_bytes())["dependencies"])
    return ", ".join(f"{package.rpartition('/')[2]} {pins[package]}" for package in peer.packages)


def pinned(requirements: str) -> dict[str, str]:
    return {name.lower(): version for name, version in _PIN.findall(requirements)}


def reason(output: str, otherwise: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip() and "complete log" not in line]
    errors = [line for line in lines if re.search(r"error|refused|not found|no such", line, re.IGNORECASE)]
    return (errors or lines or [otherwise])[-1][:200]


def _files(peer: Peer) -> list[Path]:
    return [file for suffix in ("txt", "json") if (file := REQUIREMENTS / f"{peer.name}.{suffix}").exists()]


def _cache() -> Path:
    return Path.home() / ".cache" / "coordinator-bench" / "peers"


def _install(directory: Path, files: Sequence[Path]) -> None:
    _run([sys.executable, "-m", "venv", str(directory)])
    for file in files:
        if file.suffix == ".txt":
            _run([str(directory / "bin" / "python"), "-m", "pip", "install", "-q", "-r", str(file)])
            continue
        shutil.copy(file, directory / "package.json")
        npm = shutil.which("npm")
        if npm is None:
            raise NotInstalled("npm not found")
        # No scripts: they would report the installation.
        _run([npm, "install", "--prefix", str(directory), "--ignore-scripts", "--no-audit", "--no-fund"])


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"not installed within {INSTALL_SECONDS} s") from None
    if done.returncode:
        raise NotInstalled(reason(done.stderr or done.stdout, f"{command[0]} ended with {done.returncode}"))
