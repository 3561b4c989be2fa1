"""Build and check the console: the part of scripts/console in Python. The check includes the TypeScript client."""

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from devserver import console_build  # noqa: E402  # found from the root only
from devserver.console_build import SOURCE, CannotBuild, Node, find_node, install_packages, run  # noqa: E402  # as above
from scripts import typescript_tool  # noqa: E402  # as above
from scripts.openapi import document, write_types  # noqa: E402  # as above

CHECKED = SOURCE / ".checked"


def check(node: Node, described: str) -> None:
    """Check format, lint, types and tests, unless neither the sources nor the API have changed since they passed."""
    state = hashlib.sha256((console_build.source_hash() + described).encode()).hexdigest()
    if CHECKED.is_file() and CHECKED.read_text() == state:
        return
    install_packages(node)
    write_types(node.node, described, SOURCE / "src" / "api" / "schema.d.ts")
    modules = SOURCE / "node_modules"
    run([node.node, str(modules / "@biomejs" / "biome" / "bin" / "biome"), *typescript_tool.FORMAT_CHECK])
    run([node.node, str(modules / "typescript" / "bin" / "tsc"), "--noEmit"])
    run([node.node, str(modules / "vitest" / "vitest.mjs"), "run"])
    CHECKED.write_text(state)


def check_all() -> None:
    """Check the console and the TypeScript client, where there is Node."""
    try:
        node = find_node()
    except CannotBuild as fault:
        print(f"the console and the TypeScript client are not checked: {fault}", file=sys.stderr)
        return
    described = document()
    check(node, described)
    typescript_tool.check(node, described)


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["build"]:
                print("built" if console_build.build() else "is built")
            case ["check"]:
                check_all()
            case ["npm", *rest]:
                run([*find_node().npm, *rest])
            case _:
                print("scripts/console build | check | npm ARGUMENTS")
                return 2
    except CannotBuild as fault:
        print(fault, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
