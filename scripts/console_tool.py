"""Build and check the console: the part of scripts/console in Python."""

import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from devserver import console_build  # noqa: E402  # found from the root only
from devserver.console_build import SOURCE, CannotBuild, find_node, install_packages, run  # noqa: E402  # as above

OPENAPI = SOURCE / ".openapi.json"
CHECKED = SOURCE / ".checked"


def document() -> str:
    from app.main import create_app  # noqa: PLC0415  # loaded for the check only
    from runtime.settings import Settings  # noqa: PLC0415  # as above

    return json.dumps(create_app(Settings()).openapi(), indent=1)


def check() -> None:
    """Check format, lint, types and tests, unless neither the sources nor the API have changed since they passed."""
    described = document()
    state = hashlib.sha256((console_build.source_hash() + described).encode()).hexdigest()
    if CHECKED.is_file() and CHECKED.read_text() == state:
        return
    try:
        node = find_node()
    except CannotBuild as fault:
        print(f"the console is not checked: {fault}", file=sys.stderr)
        return
    install_packages(node)
    OPENAPI.write_text(described)
    modules = SOURCE / "node_modules"
    types = modules / "openapi-typescript" / "bin" / "cli.js"
    run([node.node, str(types), str(OPENAPI), "--output", str(SOURCE / "src" / "api" / "schema.d.ts")])
    run(
        [
            node.node,
            str(modules / "@biomejs" / "biome" / "bin" / "biome"),
            "ci",
            "--error-on-warnings",
            "--colors=off",
            ".",
        ]
    )
    run([node.node, str(modules / "typescript" / "bin" / "tsc"), "--noEmit"])
    run([node.node, str(modules / "vitest" / "vitest.mjs"), "run"])
    CHECKED.write_text(state)


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["build"]:
                print("built" if console_build.build() else "is built")
            case ["check"]:
                check()
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
