"""Copy of the sources of the console in which a test breaks something."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from devserver import console_build
from tests.support.mutation import broken_text


def changed_console(directory: Path, file: str, parts: Mapping[str, str]) -> Path:
    """Copy console/ and replace these parts of a file below its src/; the packages are those of the checkout."""
    console_build.install_packages(console_build.find_node())
    copy = directory / "console"
    shutil.copytree(console_build.SOURCE, copy, ignore=shutil.ignore_patterns("node_modules"))
    (copy / "node_modules").symlink_to(console_build.SOURCE / "node_modules")
    source = copy / "src" / file
    source.write_text(broken_text(source.read_text(), parts))
    return copy


def run_package(copy: Path, script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a script of an installed package, named by its path in node_modules."""
    command = [console_build.find_node().node, str(copy / "node_modules" / script), *arguments]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False, timeout=240)


def built(copy: Path) -> Path:
    """Build the copy; return the directory that a web process serves."""
    made = copy.parent / "built"
    ended = run_package(copy, "vite/bin/vite.js", "build", "--outDir", str(made), "--logLevel", "warn")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return made
