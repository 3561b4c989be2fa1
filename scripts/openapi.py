"""Print the OpenAPI document, and make types in TypeScript from it."""

import json
from pathlib import Path

from devserver import console_build


def document() -> str:
    from app.main import create_app  # noqa: PLC0415  # slow, and not needed by all that import this module
    from runtime.settings import Settings  # noqa: PLC0415  # as above

    return json.dumps(create_app(Settings()).openapi(), indent=1)


def write_types(node: str, described: str, target: Path, *options: str) -> None:
    """Write the types of a document by the installed packages of the console. Raises CannotBuild."""
    source = console_build.SOURCE / ".openapi.json"
    source.write_text(described)
    program = console_build.SOURCE / "node_modules" / "openapi-typescript" / "bin" / "cli.js"
    console_build.run([node, str(program), str(source), *options, "--output", str(target)])


if __name__ == "__main__":
    print(document())
