"""Entries of the registries, as they are stored and as blueprints are resolved from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, TypeAlias

# A JSON object, as it was given: its order of keys is kept.
JsonObject: TypeAlias = Mapping[str, Any]


class Kind(StrEnum):
    """Registries. The values are the first segments of their routes and the folders of an export."""

    AGENT = "agents"
    CAPABILITY = "capabilities"
    SCRIPT = "scripts"
    MCP_SERVER = "mcp-servers"


class AgentType(StrEnum):
    AUTONOMOUS = "autonomous"
    PROCEDURAL = "procedural"


class AgentStatus(StrEnum):
    ACTIVE = "active"
    INACTIVE = "inactive"


class CapabilityType(StrEnum):
    SCRIPT = "script"
    MCP = "mcp"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class RunnerDemands:
    """Properties of the runner that an agent or a script asks for."""

    hostname: str | None = None
    project_dir: str | None = None
    executor_profile: str | None = None
    executor_type: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentHook:
    """Run of another agent at the begin or the end of a run. ``on_error``: block or continue."""

    type: str = "agent"
    agent_name: str
    on_error: str = "continue"
    timeout_seconds: int = 300


@dataclass(frozen=True, slots=True)
class AgentHooks:
    on_run_start: AgentHook | None = None
    on_run_finish: AgentHook | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    """Agent of the registry. ``mcp_servers``: name to ``{"ref", "config"?}``, or an inline form that no run can use.

    ``command`` and ``runner_id`` are those of a runner's agent, None for all others. Times are ISO 8601 in UTC.
    """

    name: str
    description: str
    type: str = AgentType.AUTONOMOUS
    script: str | None = None
    parameters_schema: JsonObject | None = None
    output_schema: JsonObject | None = None
    system_prompt: str | None = None
    mcp_servers: Mapping[str, JsonObject] | None = None
    skills: tuple[str, ...] | None = None
    tags: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    demands: RunnerDemands | None = None
    hooks: AgentHooks | None = None
    status: str = AgentStatus.ACTIVE
    created_at: str = ""
    modified_at: str = ""
    command: str | None = None
    runner_id: str | None = None


@dataclass(frozen=True, slots=True)
class Capability:
    """Text, MCP servers or a script that agents share. ``mcp_servers`` as those of an agent."""

    name: str
    description: str
    type: str = CapabilityType.TEXT
    script: str | None = None
    text: str | None = None
    mcp_servers: Mapping[str, JsonObject] | None = None
    created_at: str = ""
    modified_at: str = ""


@dataclass(frozen=True, slots=True)
class Script:
    """Script that procedural runners execute. ``script_content`` is None where it was not read."""

    name: str
    description: str
    script_file: str
    script_content: str | None = None
    parameters_schema: JsonObject | None = None
    demands: RunnerDemands | None = None
    created_at: str = ""
    modified_at: str = ""


@dataclass(frozen=True, slots=True)
class ConfigField:
    """Description of a field of a server's configuration; only ``required`` has an effect."""

    type: str = "string"
    description: str | None = None
    required: bool = False
    sensitive: bool = False
    default: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    id: str
    name: str
    description: str | None = None
    url: str
    config_schema: Mapping[str, ConfigField] | None = None
    default_config: JsonObject | None = None
    created_at: str = ""
    updated_at: str = ""


Entry: TypeAlias = Agent | Capability | Script | McpServer

# Fields that a record of JSON does not hold: columns of their own, and those of a runner's agent.
_OUTSIDE: Final = frozenset({"created_at", "modified_at", "updated_at", "script_content", "command", "runner_id"})


@dataclass(frozen=True, slots=True)
class ResolutionInputs:
    """Entries from which an agent is resolved: those that it names itself, and those that its capabilities name.

    An entry that does not exist is absent. Scripts come without their content.
    """

    agent: Agent
    capabilities: Mapping[str, Capability] = field(default_factory=dict)
    scripts: Mapping[str, Script] = field(default_factory=dict)
    mcp_servers: Mapping[str, McpServer] = field(default_factory=dict)


def json_of(value: Any) -> Any:
    """Return an entry, or a part of one, as JSON values; its times and the content of a script included.

    Fields that are None stay, so that a caller may drop or show them; within objects that clients gave nothing changes.
    """
    match value:
        case Agent() | Capability() | Script() | McpServer() | RunnerDemands() | AgentHook() | AgentHooks():
            return {each.name: json_of(getattr(value, each.name)) for each in fields(value)}
        case ConfigField():
            return {each.name: getattr(value, each.name) for each in fields(value)}
        case Mapping():
            return {key: json_of(inner) for key, inner in value.items()}
        case tuple():
            return [json_of(inner) for inner in value]
    return value


def without_nulls(shown: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an entry's JSON that are not null, those of its demands and hooks too."""
    kept = {name: value for name, value in shown.items() if value is not None}
    for name in ("demands", "hooks"):
        if isinstance(kept.get(name), dict):
            kept[name] = {inner: value for inner, value in kept[name].items() if value is not None}
    return kept


def record_of(entry: Entry) -> dict[str, Any]:
    """Return the part of an entry that is stored as one JSON record: all but its times and a script's content."""
    return without_nulls({name: value for name, value in json_of(entry).items() if name not in _OUTSIDE})


def entry_of(kind: Kind, record: JsonObject, created_at: str, changed_at: str, content: str | None = None) -> Entry:
    """Return the entry of a stored record. Unknown fields, written by a later version, are passed over."""
    match kind:
        case Kind.AGENT:
            return agent_of(record, created_at, changed_at)
        case Kind.CAPABILITY:
            return Capability(**_known(Capability, record), created_at=created_at, modified_at=changed_at)
        case Kind.SCRIPT:
            given = _known(Script, record) | {"demands": demands_of(record.get("demands"))}
            return Script(**given, script_content=content, created_at=created_at, modified_at=changed_at)
        case Kind.MCP_SERVER:
            schema = record.get("config_schema")
            described = None if schema is None else {name: _config_field(inner) for name, inner in schema.items()}
            given = _known(McpServer, record) | {"config_schema": described}
            return McpServer(**given, created_at=created_at, updated_at=changed_at)


def agent_of(record: JsonObject, created_at: str, changed_at: str) -> Agent:
    lists = {name: tuple(record[name]) for name in ("skills", "tags", "capabilities") if record.get(name) is not None}
    given = _known(Agent, record) | lists
    given |= {"demands": demands_of(record.get("demands")), "hooks": _hooks_of(record.get("hooks"))}
    return Agent(**given, created_at=created_at, modified_at=changed_at)


def demands_of(record: JsonObject | None) -> RunnerDemands | None:
    if record is None:
        return None
    return RunnerDemands(**_known(RunnerDemands, record) | {"tags": tuple(record.get("tags") or ())})


def _hooks_of(record: JsonObject | None) -> AgentHooks | None:
    if record is None:
        return None
    return AgentHooks(**{name: _hook_of(record.get(name)) for name in ("on_run_start", "on_run_finish")})


def _hook_of(record: JsonObject | None) -> AgentHook | None:
    return None if record is None else AgentHook(**_known(AgentHook, record))


def _config_field(record: JsonObject) -> ConfigField:
    return ConfigField(**_known(ConfigField, record))


def _known(made: type[Any], record: JsonObject) -> dict[str, Any]:
    names = {each.name for each in fields(made)} - _OUTSIDE
    return {name: value for name, value in record.items() if name in names}
