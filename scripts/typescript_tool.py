"""Build and check the TypeScript client: the part of scripts/typescript in Python.

Its packages are a part of those of the console (tests/deploy/test_locks.py), which are installed once for both.
"""

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from devserver import console_build  # noqa: E402  # found from the root only
from devserver.console_build import CannotBuild, Node, find_node, install_packages, locked, run  # noqa: E402  # as above
from scripts.openapi import document, write_types  # noqa: E402  # as above

SOURCE: Final = ROOT / "clients" / "typescript"
BUILT: Final = SOURCE / ".built"
# What builds leave beside the sources.
NOT_SOURCE: Final = ("node_modules", "dist", ".built", "src/schema.d.ts")
FORMAT_CHECK: Final = ("ci", "--error-on-warnings", "--colors=off", ".")
# Node looks for packages in the directories above too. Above the client, so that `npm ci` in it touches no other.
MODULES: Final = SOURCE.parent / "node_modules"


def build(node: Node, described: str) -> None:
    """Build dist/, and the tests into .built/tests, unless they are built from these sources and this API.

    Raises CannotBuild.
    """
    with locked(BUILT / ".lock"):
        stamp, state = BUILT / "source", _state(described)
        if not (stamp.is_file() and stamp.read_text() == state and (SOURCE / "dist").is_dir()):
            install_packages(node)
            if not MODULES.is_symlink():
                MODULES.symlink_to(console_build.SOURCE / "node_modules")
            for made in (SOURCE / "dist", BUILT / "tests"):
                shutil.rmtree(made, ignore_errors=True)
            types = SOURCE / "src" / "schema.d.ts"
            # Fields with a default may be left out of requests.
            write_types(node.node, described, types, "--default-non-nullable=false")
            (SOURCE / "dist").mkdir()
            shutil.copy(types, SOURCE / "dist")
            run([node.node, str(tool("typescript/bin/tsc")), "--build", "--force", "tests"], SOURCE)
            stamp.write_text(state)


def check(node: Node, described: str) -> None:
    """Check format, lint and types, unless neither the sources nor the API have changed since they passed."""
    checked, state = BUILT / "checked", _state(described)
    if checked.is_file() and checked.read_text() == state:
        return
    build(node, described)
    run([node.node, str(tool("@biomejs/biome/bin/biome")), *FORMAT_CHECK], SOURCE)
    checked.write_text(state)


def tool(name: str) -> Path:
    """Return a program of an installed package."""
    return console_build.SOURCE / "node_modules" / name


def _state(described: str) -> str:
    return hashlib.sha256((console_build.source_hash(SOURCE, NOT_SOURCE) + described).encode()).hexdigest()


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["build"]:
                build(find_node(), document())
            case ["pack"]:
                node = find_node()
                build(node, document())
                for packed in BUILT.glob("*.tgz"):
                    packed.unlink()
                run([*node.npm, "pack", "--pack-destination", str(BUILT)], SOURCE)
                print(*BUILT.glob("*.tgz"), sep="\n")
            case ["check"]:
                check(find_node(), document())
            case ["npm", *rest]:
                run([*find_node().npm, *rest], SOURCE)
            case _:
                print("scripts/typescript build | pack | check | npm ARGUMENTS")
                return 2
    except CannotBuild as fault:
        print(fault, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
