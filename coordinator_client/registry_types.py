"""Types of the calls of operators, made by scripts/client_types.py."""

from typing import Any, Literal, NotRequired, TypedDict

from coordinator_client.types import Demands


class HookShown(TypedDict):
    """Agent for the begin or the end of each run of another: kept and sent in blueprints; no process here runs it."""

    type: Literal["agent"]
    agent_name: str
    on_error: Literal["block", "continue"]
    timeout_seconds: int


class HooksShown(TypedDict):
    """Hooks of an agent."""

    on_run_start: NotRequired[HookShown]
    on_run_finish: NotRequired[HookShown]


class Agent(TypedDict):
    """Agent of the registry, or of a registered runner: runs that name one go to that runner alone. Absent fields
    are not set. Unless it is asked for with `raw`, an agent of the registry comes with its capabilities merged.

    Attributes:
        parameters_schema: JSON Schema (Draft 7) of the parameters of its runs.
        output_schema: JSON Schema (Draft 7).
        mcp_servers: MCP servers by name: id and configuration.
        tags: Empty for an agent of a runner.
        capabilities: Empty for an agent of a runner.
        created_at: ISO 8601, in UTC, with offset; empty for an agent of a runner.
        modified_at: ISO 8601, in UTC, with offset; empty for an agent of a runner.
        command: Of an agent of a runner, for those who may act for the runner.
        runner_id: Of an agent of a runner, for those who may act for the runner.
    """

    name: str
    description: str
    type: Literal["autonomous", "procedural"]
    script: NotRequired[str]
    parameters_schema: NotRequired[dict[str, Any]]
    output_schema: NotRequired[dict[str, Any]]
    system_prompt: NotRequired[str]
    mcp_servers: NotRequired[dict[str, dict[str, Any]]]
    skills: NotRequired[list[str]]
    tags: list[str]
    capabilities: list[str]
    demands: NotRequired[Demands]
    hooks: NotRequired[HooksShown]
    status: Literal["active", "inactive"]
    created_at: str
    modified_at: str
    command: NotRequired[str]
    runner_id: NotRequired[str]


class Capability(TypedDict):
    """Text, script or MCP servers that agents share. Absent fields are not set.

    Attributes:
        name: 1 to 60 letters, digits, `-` and `_`, the first a letter or digit.
        mcp_servers: MCP servers by name: id and configuration.
    """

    name: str
    description: str
    type: Literal["script", "mcp", "text"]
    script: NotRequired[str]
    text: NotRequired[str]
    mcp_servers: NotRequired[dict[str, dict[str, Any]]]
    created_at: str
    modified_at: str


class CapabilitySummary(TypedDict):
    """Capability, as the list shows it.

    Attributes:
        name: 1 to 60 letters, digits, `-` and `_`, the first a letter or digit.
    """

    name: str
    description: str
    type: Literal["script", "mcp", "text"]
    has_script: bool
    script_name: str | None
    has_text: bool
    has_mcp: bool
    mcp_server_names: list[str]
    created_at: str
    modified_at: str


class Script(TypedDict):
    """Script that procedural runners execute. Absent fields are not set.

    Attributes:
        name: 1 to 60 letters, digits, `-` and `_`, the first a letter or digit.
        parameters_schema: JSON Schema (Draft 7).
    """

    name: str
    description: str
    script_file: str
    script_content: str
    parameters_schema: NotRequired[dict[str, Any]]
    demands: NotRequired[Demands]
    created_at: str
    modified_at: str


class ScriptSummary(TypedDict):
    """Script, as the list shows it.

    Attributes:
        name: 1 to 60 letters, digits, `-` and `_`, the first a letter or digit.
    """

    name: str
    description: str
    script_file: str
    has_parameters_schema: bool
    has_demands: bool
    demand_tags: list[str]
    created_at: str
    modified_at: str


class ConfigFieldShown(TypedDict):
    """Field of a server's configuration. Only `required` has an effect."""

    type: str
    description: str | None
    required: bool
    sensitive: bool
    default: Any


class McpServer(TypedDict):
    """MCP server of the registry, which agents name by its id."""

    id: str
    name: str
    description: str | None
    url: str
    config_schema: dict[str, ConfigFieldShown] | None
    default_config: dict[str, Any] | None
    created_at: str
    updated_at: str
