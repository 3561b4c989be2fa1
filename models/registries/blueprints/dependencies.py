"""Resolve an agent with the capabilities and the script that it names (step A of a blueprint)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from models.core.errors import CoordinatorError
from models.registries.blueprints.script_usage import script_usage
from models.registries.records import Agent, AgentType, Capability, ResolutionInputs

SEPARATOR: Final = "\n\n---\n\n"
# Of a blueprint's JSON, hence of a prompt too: a batch of submissions holds as many in memory as it has runs.
MOST_BYTES: Final = 256 * 1024
_OF_AGENT: Final = "agent"


class Unresolved(StrEnum):
    CAPABILITY = "capability"
    SCRIPT = "script"
    MCP_SERVER = "mcp_server"
    SIZE = "size"


@dataclass(frozen=True)
class ResolutionError(CoordinatorError):
    """The agent names an entry that does not exist, a server of one name comes from two ``sources``, or is too large.

    ``name`` is that of the missing entry or of the server; ``script`` of the agent itself: ``own_script``.
    """

    agent_name: str
    kind: Unresolved
    name: str = ""
    sources: tuple[str, ...] = ()
    own_script: bool = False

    def text(self) -> str:
        """Return the reason as an answer about this agent gives it."""
        return self._text("", "MCP server name conflict")

    def text_of_list(self) -> str:
        """Return the reason with the agent's name, for answers about more than one."""
        return self._text(f" for agent '{self.agent_name}'", f"MCP server conflict in agent '{self.agent_name}'")

    def _text(self, of_agent: str, conflict: str) -> str:
        match self.kind:
            case Unresolved.CAPABILITY:
                return f"Capability resolution failed{of_agent}: {self.name} not found"
            case Unresolved.SCRIPT:
                return f"Script resolution failed{of_agent}: {self.name} not found"
            case Unresolved.MCP_SERVER:
                return f"{conflict}: '{self.name}' defined in {', '.join(self.sources)}"
            case Unresolved.SIZE:
                return f"Resolution failed{of_agent}: more than {MOST_BYTES} bytes; shorten its texts or its parameters"


def resolve_dependencies(inputs: ResolutionInputs) -> Agent | ResolutionError:
    """Return the agent with the parts of its capabilities, or with the parameters of its script."""
    if inputs.agent.type == AgentType.PROCEDURAL:
        return _procedural(inputs)
    return _autonomous(inputs) if inputs.agent.capabilities else inputs.agent


def _procedural(inputs: ResolutionInputs) -> Agent | ResolutionError:
    agent = inputs.agent
    if not agent.script:
        return agent
    script = inputs.scripts.get(agent.script)
    if script is None:
        return ResolutionError(agent.name, Unresolved.SCRIPT, agent.script, own_script=True)
    return replace(agent, parameters_schema=script.parameters_schema or agent.parameters_schema)


def _autonomous(inputs: ResolutionInputs) -> Agent | ResolutionError:
    agent = inputs.agent
    parts = [agent.system_prompt or ""]
    sources: dict[str, str] = {}
    servers: dict[str, Any] = {}
    for name in agent.capabilities:
        capability = inputs.capabilities.get(name)
        if capability is None:
            return ResolutionError(agent.name, Unresolved.CAPABILITY, name)
        texts = _texts(inputs, capability)
        if isinstance(texts, ResolutionError):
            return texts
        parts += texts
        conflict = _add(agent.name, servers, sources, capability.mcp_servers, f"capability:{name}")
        if conflict is not None:
            return conflict
        if sum(map(len, parts)) > MOST_BYTES:
            return ResolutionError(agent.name, Unresolved.SIZE)
    conflict = _add(agent.name, servers, sources, agent.mcp_servers, _OF_AGENT)
    if conflict is not None:
        return conflict
    prompt = SEPARATOR.join(part for part in parts if part)
    return replace(
        agent, system_prompt=prompt or None, mcp_servers=servers or None, script=None, command=None, runner_id=None
    )


def _texts(inputs: ResolutionInputs, capability: Capability) -> list[str] | ResolutionError:
    if not capability.script:
        return [capability.text or ""]
    script = inputs.scripts.get(capability.script)
    if script is None:
        return ResolutionError(inputs.agent.name, Unresolved.SCRIPT, capability.script)
    return [capability.text or "", script_usage(script)]


def _add(
    agent_name: str, servers: dict[str, Any], sources: dict[str, str], given: Mapping[str, Any] | None, source: str
) -> ResolutionError | None:
    for name, server in (given or {}).items():
        if name in servers:
            return ResolutionError(agent_name, Unresolved.MCP_SERVER, name, (sources[name], source))
        servers[name], sources[name] = server, source
    return None
