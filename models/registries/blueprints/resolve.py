"""Resolve the blueprint that a runner gets with a run of an agent of the registry."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import orjson

from models.claims.matching import Demands
from models.core.errors import CoordinatorError
from models.registries.blueprints.demands import demands_of_agent
from models.registries.blueprints.dependencies import MOST_BYTES, ResolutionError, Unresolved, resolve_dependencies
from models.registries.blueprints.mcp_references import McpConfigMissing, McpReferenceUnresolved, resolve_mcp_servers
from models.registries.blueprints.placeholders import Substitution, TooLarge, Values
from models.registries.records import Agent, AgentType, ResolutionInputs, json_of, without_nulls

BlueprintError: TypeAlias = ResolutionError | McpReferenceUnresolved | McpConfigMissing
_SERVERS: Final = "mcp_servers"


@dataclass(frozen=True)
class ScriptNotFound(CoordinatorError):
    """The script of the agent itself does not exist."""

    agent_name: str
    script_name: str

    def __str__(self) -> str:
        return f"Script '{self.script_name}' referenced by agent '{self.agent_name}' not found"


@dataclass(frozen=True)
class RegistryAgent:
    """Agent of the registry as submissions read it: one version of it and of all entries that it names."""

    inputs: ResolutionInputs

    @property
    def name(self) -> str:
        return self.inputs.agent.name

    @property
    def is_procedural(self) -> bool:
        return self.inputs.agent.type == AgentType.PROCEDURAL

    @cached_property
    def resolved(self) -> Agent | ResolutionError:
        return resolve_dependencies(self.inputs)

    @cached_property
    def refused(self) -> CoordinatorError | None:
        """Reason for which no run can have this agent."""
        agent = self.resolved
        if isinstance(agent, ResolutionError):
            return ScriptNotFound(self.name, agent.name) if agent.own_script else agent
        if agent.script and agent.script not in self.inputs.scripts:
            return ScriptNotFound(self.name, agent.script)
        return None

    @cached_property
    def demands(self) -> Demands:
        """Demands of its runs; known also where its resolution fails, since callbacks do without a blueprint."""
        name = self.inputs.agent.script
        named = self.is_procedural or not self.inputs.agent.capabilities
        return demands_of_agent(self.inputs.agent, self.inputs.scripts.get(name) if name and named else None)

    @cached_property
    def parameters_schema(self) -> str | None:
        """Schema of the parameters of a start, JSON text; None: see ``takes_any``."""
        agent = self.resolved
        if isinstance(agent, ResolutionError):
            return None
        script = self.inputs.scripts.get(agent.script) if agent.script else None
        schema = agent.parameters_schema if not agent.script else script and script.parameters_schema
        return _json(schema) if schema else None

    @property
    def takes_any(self) -> bool:
        """Return whether any parameters do; else they must satisfy the schema, or be a prompt if there is none."""
        agent = self.resolved
        of_script = isinstance(agent, Agent) and bool(agent.script)
        return self.parameters_schema is None and (self.is_procedural or of_script)

    @cached_property
    def schema_hash(self) -> str | None:
        schema = self.parameters_schema
        return None if schema is None else hashlib.sha256(schema.encode()).hexdigest()

    @cached_property
    def shown(self) -> dict[str, Any]:
        """Resolved agent as an object without nulls (step B); call it only when the agent is not ``refused``."""
        return without_nulls(json_of(self.resolved))


def resolve_blueprint(agent: RegistryAgent, values: Values) -> str | BlueprintError:
    """Return the blueprint as JSON text, at most 256 KiB."""
    if isinstance(agent.resolved, ResolutionError):
        return agent.resolved
    substitution = Substitution(values, MOST_BYTES)
    try:
        rest = {name: inner for name, inner in agent.shown.items() if name != _SERVERS}
        filled: dict[str, Any] = substitution.value(rest)
        given = agent.shown.get(_SERVERS)
        if given:
            servers = resolve_mcp_servers(given, agent.inputs.mcp_servers, substitution)
            if not isinstance(servers, dict):
                return servers
            filled[_SERVERS] = servers
    except TooLarge:
        return ResolutionError(agent.name, Unresolved.SIZE)
    text = _json(filled)
    return ResolutionError(agent.name, Unresolved.SIZE) if len(text.encode()) > MOST_BYTES else text


def parsed(text: str | None) -> dict[str, Any]:
    """Return a JSON object of a run; {} for none."""
    if text is None:
        return {}
    try:
        value = orjson.loads(text)
    except ValueError:
        # Lone surrogates as escapes, which are stored as they were given.
        value = json.loads(text)
    return value if isinstance(value, dict) else {}


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # Lone surrogates, and integers of more than 64 bits.
        return json.dumps(value, separators=(",", ":"))
