from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from models.registries.records import Script


def script_usage(script: Script) -> str:
    """Return how to call the script, as Markdown for the prompt of an agent that has its capability."""
    schema = script.parameters_schema or {}
    properties = schema.get("properties")
    given = properties if isinstance(properties, Mapping) else {}
    arguments = {name: _described(described) for name, described in given.items()}
    required = schema.get("required")
    needed = frozenset(map(str, required)) if isinstance(required, list) else frozenset()
    return "\n".join(_lines(script, arguments, needed))


def _lines(script: Script, arguments: Mapping[str, Mapping[str, Any]], needed: frozenset[str]) -> Iterator[str]:
    command = [f"uv run --script scripts/{script.name}/{script.script_file}"]
    command += [_argument(name, given, required=name in needed) for name, given in arguments.items()]
    yield f"## Local Script: {script.name}"
    yield f"**Description:** {script.description}"
    yield ""
    yield "**Usage:**"
    yield "```bash"
    yield " ".join(command)
    yield "```"
    if arguments:
        yield ""
        yield "**Arguments:**"
    for name, given in arguments.items():
        yield " ".join(_explained(name, given, required=name in needed))


def _argument(name: str, given: Mapping[str, Any], *, required: bool) -> str:
    hint = _hint(name, given)
    argument = f"--{name} {hint}" if hint else f"--{name}"
    return argument if required else f"[{argument}]"


def _hint(name: str, given: Mapping[str, Any]) -> str:
    if "enum" in given:
        return f"<{'|'.join(_values(given['enum']))}>"
    match given.get("type", "string"):
        case "boolean":
            return ""
        case "integer" | "number":
            return "<N>"
        case "array":
            return "<value1,value2,...>"
    return f"<{name}>"


def _explained(name: str, given: Mapping[str, Any], *, required: bool) -> Iterator[str]:
    yield f"- `--{name}`"
    yield "(required)" if required else "(optional)"
    kind = given.get("type", "string")
    if "enum" in given:
        yield f"One of: {', '.join(_values(given['enum']))}"
    elif kind != "string":
        yield f"({kind})"
    if "default" in given:
        yield f"[default: {given['default']}]"
    if "description" in given:
        yield f"- {given['description']}"


def _values(given: Any) -> Iterable[str]:
    return map(str, given) if isinstance(given, list) else [str(given)]


def _described(given: Any) -> Mapping[str, Any]:
    # A schema may be true or false, too.
    return given if isinstance(given, Mapping) else {}
