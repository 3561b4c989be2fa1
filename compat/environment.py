"""Working copy of the checkout with what its programs need: Python packages, `uv`, and built TypeScript packages."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devserver.console_build import CannotBuild, find_node

SERVER: Final = Path("servers", "agent-coordinator")
RUNNER: Final = Path("servers", "agent-runner")
SDKS: Final = ("packages/agent-orchestrator-sdk", "packages/context-store-sdk")
DASHBOARD: Final = "apps/dashboard"
# Address that the dashboard is built for; serving puts that of a coordinator in its place.
BUILT_FOR: Final = "http://coordinator.invalid"
INSTALL_SECONDS: Final = 1200
# Version that the code was written for where the requirement names no upper bound, and later ones do not run it.
WRITTEN_FOR: Final = ("mcp<2",)
_SCRIPT: Final = re.compile(r"^# /// script\n(?P<lines>(?:#.*\n)+?)# ///$", re.MULTILINE)
# Their runner starts executors by `uv run --script`; this one has what they need installed already.
_UV: Final = '#!/bin/sh\n[ "$1 $2" = "run --script" ] || exit 64\nshift 2\nexec "{python}" "$@"\n'


class NotInstalled(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Environment:
    directory: Path

    @property
    def checkout(self) -> Path:
        return self.directory / "checkout"

    @property
    def python(self) -> Path:
        return self.directory / "venv" / "bin" / "python"

    @property
    def sdk(self) -> Path:
        return self.directory / "sdk.mjs"

    def variables(self, **more: str) -> dict[str, str]:
        """Return the environment of a program of the checkout, which writes no caches into it."""
        return child_environment(
            {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", **more}, self.directory / "bin"
        )


def child_environment(more: Mapping[str, str], first: Path | None = None) -> dict[str, str]:
    """Return our environment with more variables; with a directory that comes first in PATH little else of ours."""
    if first is None:
        return {**os.environ, **more}
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PATH": f"{first}{os.pathsep}{os.environ.get('PATH', '')}", **more}


def prepare(checkout: Path, directory: Path) -> Environment:
    """Copy the checkout, install its requirements where they have changed. Raises NotInstalled."""
    environment = Environment(directory.resolve())
    for part in (SERVER / "pyproject.toml", RUNNER / "agent-runner"):
        if not (checkout / part).is_file():
            raise NotInstalled(f"{checkout} is no checkout of the other coordinator: it has no {part}")
    shutil.copytree(
        checkout, environment.checkout, symlinks=True, ignore=shutil.ignore_patterns(".git"), dirs_exist_ok=True
    )
    requirements = [*_server_requirements(checkout), *_runner_requirements(checkout), *WRITTEN_FOR, "pytest"]
    digest = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()
    directory = environment.directory
    stamp = directory / "venv" / ".installed"
    if not stamp.is_file() or stamp.read_text() != digest:
        if not environment.python.is_file():
            run([sys.executable, "-m", "venv", str(directory / "venv")], directory)
        run([str(environment.python), "-m", "pip", "install", "-q", *requirements], directory)
        stamp.write_text(digest)
    tools = directory / "bin"
    tools.mkdir(exist_ok=True)
    (tools / "uv").write_text(_UV.format(python=environment.python))
    (tools / "uv").chmod(0o755)
    return environment


def build_packages(environment: Environment) -> None:
    """Install the npm packages, and build the SDKs and the dashboard, once. Raises NotInstalled."""
    try:
        node = find_node()
    except CannotBuild as fault:
        raise NotInstalled(str(fault)) from None
    root = environment.checkout
    digest = hashlib.sha256((root / "package-lock.json").read_bytes()).hexdigest()
    stamp = root / "node_modules" / ".installed"
    if not stamp.is_file() or stamp.read_text() != digest:
        wanted = [part for name in (DASHBOARD, *SDKS) for part in ("-w", name)]
        run([*node.npm, "ci", *wanted, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], root)
        stamp.write_text(digest)
    for package in SDKS:
        if not (root / package / "dist" / "index.js").is_file():
            run([*node.npm, "run", "build", "-w", package], root)
    if not environment.sdk.is_file():
        # Its modules name each other without an extension, as bundlers take them and Node does not.
        bundler = root / "node_modules" / "esbuild" / "bin" / "esbuild"
        source = root / SDKS[0] / "dist" / "index.js"
        run([node.node, str(bundler), str(source), "--bundle", "--format=esm", f"--outfile={environment.sdk}"], root)
    if not (root / DASHBOARD / "dist" / "index.html").is_file():
        run([*node.npm, "run", "build", "-w", DASHBOARD], root, VITE_AGENT_ORCHESTRATOR_API_URL=BUILT_FOR)


def run(command: Sequence[str], directory: Path, **more: str) -> None:
    """Run a command of an installation. Raises NotInstalled with the end of its output."""
    try:
        ended = subprocess.run(
            command,
            cwd=directory,
            env=child_environment(more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"`{' '.join(command)}` did not end within {INSTALL_SECONDS} s") from None
    if ended.returncode:
        said = ended.stdout.decode(errors="replace").strip()[-2000:]
        raise NotInstalled(f"`{' '.join(command)}` failed ({ended.returncode}):\n{said}")


def _server_requirements(checkout: Path) -> list[str]:
    found: list[str] = tomllib.loads((checkout / SERVER / "pyproject.toml").read_text())["project"]["dependencies"]
    return found


def _runner_requirements(checkout: Path) -> list[str]:
    """Return what the script of the runner says that it needs (PEP 723)."""
    found = _SCRIPT.search((checkout / RUNNER / "agent-runner").read_text())
    if found is None:
        raise NotInstalled("the runner of the checkout does not name its requirements")
    lines = [line.removeprefix("#").removeprefix(" ") for line in found["lines"].splitlines()]
    requirements: list[str] = tomllib.loads("\n".join(lines))["dependencies"]
    return requirements
