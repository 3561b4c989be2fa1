"""Write coordinator_client/types.py from the models of app/schemas: the client imports neither them nor pydantic."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.schemas import (
    administration,
    agents,
    bulk,
    callers,
    events,
    explanations,
    failures,
    health,
    holds,
    overview,
    polls,
    problems,
    registries,
    reports,
    retries,
    runners,
    runs,
    schedules,
    sessions,
    webhooks,
)
from models.core.statuses import TERMINAL

FILE: Final = Path(__file__).parent.parent / "coordinator_client" / "types.py"
OPERATOR_FILE: Final = FILE.with_name("operator_types.py")
OVERVIEW_FILE: Final = FILE.with_name("overview_types.py")
BULK_FILE: Final = FILE.with_name("bulk_types.py")
REGISTRY_FILE: Final = FILE.with_name("registry_types.py")
FAILURE_FILE: Final = FILE.with_name("failure_types.py")
HOLD_FILE: Final = FILE.with_name("hold_types.py")
RETRY_FILE: Final = FILE.with_name("retry_types.py")
SCHEDULE_FILE: Final = FILE.with_name("schedule_types.py")
WEBHOOK_FILE: Final = FILE.with_name("webhook_types.py")
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
)
# Types of the calls of operators, in files of their own.
OPERATOR_MODELS: Final[tuple[type[BaseModel], ...]] = (
    callers.Me,
    runs.RunSummaryPage,
    explanations.RunExplanation,
    explanations.RunnerExplanation,
    runs.RunTimeline,
    sessions.SessionTree,
    health.Readiness,
)
RETRY_MODELS: Final[tuple[type[BaseModel], ...]] = (retries.Retry, retries.RetryPolicy)
FAILURE_MODELS: Final[tuple[type[BaseModel], ...]] = (failures.Failures,)
HOLD_MODELS: Final[tuple[type[BaseModel], ...]] = (holds.Hold, holds.HoldList, holds.RunHeld)
OVERVIEW_MODELS: Final[tuple[type[BaseModel], ...]] = (
    overview.RunCounts,
    overview.Queues,
    overview.Series,
    administration.KeyList,
    administration.AuditPage,
    administration.System,
)
BULK_MODELS: Final[tuple[type[BaseModel], ...]] = (bulk.BulkPreview, bulk.Bulk, bulk.BulkPage)
REGISTRY_MODELS: Final[tuple[type[BaseModel], ...]] = (
    agents.Agent,
    registries.Capability,
    registries.CapabilitySummary,
    registries.Script,
    registries.ScriptSummary,
    registries.McpServer,
)
SCHEDULE_MODELS: Final[tuple[type[BaseModel], ...]] = (
    schedules.Schedule,
    schedules.SchedulePage,
    schedules.FirePage,
    schedules.NextTimes,
    schedules.Backfill,
    schedules.SchedulesChanged,
)
WEBHOOK_MODELS: Final[tuple[type[BaseModel], ...]] = (
    webhooks.WebhookCreated,
    webhooks.WebhookPage,
    webhooks.WebhookDeliveryPage,
)
BASES: Final = {model.__name__: base.__name__ for model in MODELS for base in model.__bases__ if base in MODELS}
# Fields of answers that coordinators of earlier versions do not send.
LATER: Final = {
    "Run.replay_of",
    "ClaimedRun.scope",
    "ClaimedRun.resolved_agent_blueprint",
    "Session.owner",
    "Session.depth",
    "Event.feed_cursor",
    "Event.run_id",
    "Runner.capacity",
    "Runner.runs_in_hand",
    "Runner.lost",
    "Runner.draining_since",
    "Runner.drain_reason",
    "HeartbeatAnswer.not_yours",
    "SessionDeleted.runs_removed_from_cache",
    "RunTimeline.retry",
    "RunAttempt.ended_by",
    "RunAttempt.error",
    "RunAttempt.failure",
    "RunAttempt.log_after",
    "RunAttempt.log_before",
}
HEAD: Final = '''"""Types of the HTTP API, made by scripts/client_types.py. Times are ISO 8601 texts in UTC."""

from typing import Any, Literal, NotRequired, TypedDict

TERMINAL_STATUSES = frozenset({terminal})
'''
OPERATOR_HEAD: Final = '''"""Types of the calls of operators, made by scripts/client_types.py."""

from typing import {typing}

{shared}'''
WIDTH: Final = 120
PLAIN: Final = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
REF: Final = "{model}"


def generated() -> dict[Path, str]:
    others = {
        RETRY_FILE: RETRY_MODELS,
        OPERATOR_FILE: OPERATOR_MODELS,
        OVERVIEW_FILE: OVERVIEW_MODELS,
        BULK_FILE: BULK_MODELS,
        REGISTRY_FILE: REGISTRY_MODELS,
        HOLD_FILE: HOLD_MODELS,
        FAILURE_FILE: FAILURE_MODELS,
        SCHEDULE_FILE: SCHEDULE_MODELS,
        WEBHOOK_FILE: WEBHOOK_MODELS,
    }
    models = [model for group in (MODELS, *others.values()) for model in group]
    _, definitions = models_json_schema([(model, "serialization") for model in models], ref_template=REF)
    written: dict[str, str] = {}
    for model in MODELS:
        _write(model.__name__, definitions["$defs"], written)
    terminal = "{" + ", ".join(f'"{status}"' for status in sorted(TERMINAL)) + "}"
    files = {FILE: HEAD.replace("{terminal}", terminal) + "".join(written.values())}
    places = {FILE.stem: list(written)}
    for file, group in others.items():
        before = set(written)
        for model in group:
            _write(model.__name__, definitions["$defs"], written)
        added = [name for name in written if name not in before]
        files[file] = _with_imports("".join(written[name] for name in added), places)
        places[file.stem] = added
    return files


def _with_imports(added: str, places: Mapping[str, Iterable[str]]) -> str:
    """Put the types below a head that imports those which they name, by the modules that have them."""
    shared = "".join(
        f"from coordinator_client.{module} import {_fitting(module, names)}\n"
        for module in sorted(places)
        if (names := ", ".join(sorted(name for name in places[module] if re.search(rf"\b{name}\b", _code(added)))))
    )
    typing = ", ".join(name for name in ("Any", "Literal", "NotRequired", "TypedDict") if name in _code(added))
    head = OPERATOR_HEAD.replace("{typing}", typing).replace("{shared}", shared).rstrip("\n") + "\n"
    return head + (added if added.startswith("\n\nclass") else added.removeprefix("\n"))


def _fitting(module: str, names: str) -> str:
    """Return the names of an import, in parentheses if the line would be too long."""
    if len(f"from coordinator_client.{module} import {names}") <= WIDTH:
        return names
    return "(\n" + "".join(f"    {name},\n" for name in names.split(", ")) + ")"


def _code(text: str) -> str:
    return re.sub(r'"""[^"]*"""', "", text)


def _write(name: str, schemas: dict[str, Any], written: dict[str, str]) -> None:
    schema = schemas[name]
    members = [schemas[member["$ref"]] for member in schema.get("anyOf", ())] or [schema]
    for held in _references(members):
        if held not in written:
            _write(held, schemas, written)
    if "enum" in schema:
        line = f"{name} = {_type(schema)}"
        if len(line) > WIDTH:
            line = f"{name} = Literal[\n" + "".join(f'    "{value}",\n' for value in schema["enum"]) + "]"
        written[name] = f"\n\n{line}\n"
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
    for file, text in generated().items():
        file.write_text(text)
