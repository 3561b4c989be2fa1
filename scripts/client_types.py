"""Write coordinator_client/types.py from the models of app/schemas: the client imports neither them nor pydantic."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.schemas import events, health, polls, problems, reports, runners, runs, sessions
from models.core.statuses import TERMINAL

FILE: Final = Path(__file__).parent.parent / "coordinator_client" / "types.py"
# Types that methods of the client take or return; those that they hold are written before them.
MODELS: Final[tuple[type[BaseModel], ...]] = (
    runs.AdditionalDemands,
    runs.Submitted,
    runs.BatchItem,
    runs.Run,
    runs.ClaimedRun,
    runs.RunPage,
    runs.Result,
    runs.Stopped,
    sessions.Session,
    sessions.SessionPage,
    sessions.SessionDeleted,
    events.Event,
    events.NewEvent,
    runners.Registration,
    runners.Runner,
    runners.RunnerLeaves,
    polls.PollAnswer,
    reports.Report,
    reports.HeartbeatAnswer,
    problems.ItemAnswer,
    health.Readiness,
)
BASES: Final = {model.__name__: base.__name__ for model in MODELS for base in model.__bases__ if base in MODELS}
# Fields of answers that coordinators of earlier versions do not send.
LATER: Final = {
    "RunPage.feed_cursor",
    "SessionPage.feed_cursor",
    "ClaimedRun.scope",
    "ClaimedRun.resolved_agent_blueprint",
    "Session.owner",
    "Session.depth",
    "Event.feed_cursor",
    "Event.run_id",
    "Runner.capacity",
    "Runner.runs_in_hand",
    "Runner.lost",
    "HeartbeatAnswer.not_yours",
}
HEAD: Final = '''"""Types of the HTTP API, made by scripts/client_types.py. Times are ISO 8601 texts in UTC."""

from typing import Any, Literal, NotRequired, TypedDict

TERMINAL_STATUSES = frozenset({terminal})
'''
WIDTH: Final = 120
PLAIN: Final = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
REF: Final = "{model}"


def generated() -> str:
    _, definitions = models_json_schema([(model, "serialization") for model in MODELS], ref_template=REF)
    written: dict[str, str] = {}
    for model in MODELS:
        _write(model.__name__, definitions["$defs"], written)
    terminal = "{" + ", ".join(f'"{status}"' for status in sorted(TERMINAL)) + "}"
    return HEAD.replace("{terminal}", terminal) + "".join(written.values())


def _write(name: str, schemas: dict[str, Any], written: dict[str, str]) -> None:
    """Add the definition of a component and, before it, those that it holds; a choice has the fields of its members."""
    schema = schemas[name]
    members = [schemas[member["$ref"]] for member in schema.get("anyOf", ())] or [schema]
    for held in _references(members):
        if held not in written:
            _write(held, schemas, written)
    if "enum" in schema:
        written[name] = f"\n\n{name} = {_type(schema)}\n"
        return
    base = BASES.get(name, "TypedDict")
    inherited = schemas[base]["properties"] if base in schemas else {}
    fields = {
        field: value for member in members for field, value in member["properties"].items() if field not in inherited
    }
    required = set.intersection(*(set(member.get("required", ())) for member in members))
    required -= {field for field in required if f"{name}.{field}" in LATER}
    lines = [f"    {field}: {_field_type(field, value, required)}" for field, value in fields.items()]
    written[name] = "\n\n" + "\n".join([f"class {name}({base}):", _docstring(schema, fields), "", *lines]) + "\n"


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for value in schema.values():
            yield from _references(value)
    if isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _field_type(name: str, schema: dict[str, Any], required: set[str]) -> str:
    return _type(schema) if name in required else f"NotRequired[{_type(schema)}]"


def _type(schema: dict[str, Any]) -> str:
    match schema:
        case {"$ref": str(name)}:
            return name
        case {"const": value}:
            return f'Literal["{value}"]'
        case {"enum": values}:
            return "Literal[" + ", ".join(f'"{value}"' for value in values) + "]"
        case {"anyOf": members}:
            return " | ".join(dict.fromkeys(_type(member) for member in members))
        case {"type": "array"}:
            return f"list[{_type(schema['items'])}]"
        case {"type": "object"}:
            inner = schema.get("additionalProperties")
            return f"dict[str, {_type(inner) if isinstance(inner, dict) else 'Any'}]"
        case {"type": kind}:
            return PLAIN[kind]
    return "Any"


def _docstring(schema: dict[str, Any], fields: dict[str, Any]) -> str:
    told = [f"{name}: {value['description']}." for name, value in fields.items() if "description" in value]
    lines = _wrapped(f'"""{schema["description"]}', 4, 4)
    if not told:
        return f'{lines}"""'
    return "\n".join([lines, "", "    Attributes:", *(_wrapped(line, 8, 12) for line in told), '    """'])


def _wrapped(text: str, first: int, rest: int) -> str:
    plain = " ".join(text.split())
    return textwrap.fill(
        plain, WIDTH - 3, initial_indent=" " * first, subsequent_indent=" " * rest, break_long_words=False
    )


if __name__ == "__main__":
    FILE.write_text(generated())
