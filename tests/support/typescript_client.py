"""Built TypeScript client: the checkout's, and copies in which a test breaks something."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from devserver import console_build
from scripts import openapi, typescript_tool
from tests.support.mutation import broken_text

PROGRAM = {"composite": False, "tsBuildInfoFile": None, "rootDir": ".", "outDir": "."}


@cache
def built_client() -> str:
    """Build the client and its tests unless they are built; return the program that runs them."""
    node = console_build.find_node()
    typescript_tool.build(node, openapi.document())
    return node.node


def changed_client(directory: Path, file: str, parts: Mapping[str, str]) -> Path:
    """Copy the built client and replace these parts of a file of its dist/."""
    built_client()
    copy = directory / "client"
    shutil.copytree(typescript_tool.BUILT / "tests", copy / ".built" / "tests")
    shutil.copytree(typescript_tool.SOURCE / "dist", copy / "dist")
    shutil.copy(typescript_tool.SOURCE / "package.json", copy)
    (directory / "node_modules").symlink_to(console_build.SOURCE / "node_modules")
    changed = copy / "dist" / file
    changed.write_text(broken_text(changed.read_text(), parts))
    return copy


def run_program(directory: Path, code: str) -> str:
    """Compile a program that imports the client, strictly, and return what it printed."""
    node = built_client()
    (directory / "node_modules").mkdir()
    (directory / "node_modules" / "coordinator-client").symlink_to(typescript_tool.SOURCE)
    (directory / "package.json").write_text('{"type": "module"}')
    (directory / "program.ts").write_text(code)
    options = {
        "extends": str(typescript_tool.SOURCE / "tsconfig.json"),
        "compilerOptions": PROGRAM,
        "files": ["program.ts"],
        "include": [],
    }
    (directory / "tsconfig.json").write_text(json.dumps(options))
    _run(node, str(typescript_tool.tool("typescript/bin/tsc")), folder=directory)
    return _run(node, "program.js", folder=directory)


def _run(*command: str, folder: Path) -> str:
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
