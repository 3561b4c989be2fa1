"""Entries of the registries, as clients give and see them."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag

from app.schemas.base import LONGEST_SECONDS, Described, MayLack, Timestamp, Validated
from app.schemas.base import Tag as Label
from app.schemas.base import Text as ShortText
from app.schemas.runs import Demands

LONGEST_DESCRIPTION = 16 * 1024
LONGEST_TEXT = 256 * 1024
LONGEST_SCRIPT = 512 * 1024
LONGEST_FILE = 255
MOST_NAMES = 64
MOST_SERVERS = 64
MOST_FIELDS = 256

# File of an archive that describes the script beside it.
SCRIPT_RECORD = "script.json"

NAME_RULE = "1 to 60 letters, digits, `-` and `_`, the first a letter or digit"


def _file_name(value: str) -> str:
    if not value.isprintable() or "/" in value or "\\" in value or value in {".", "..", SCRIPT_RECORD}:
        raise ValueError(f"Should be the name of a file without a folder, and not {SCRIPT_RECORD}")
    return value


def _path_segment(value: str) -> str:
    if not value.isprintable() or "/" in value or "\\" in value or value in {".", ".."}:
        raise ValueError("Should be printable, without slashes, and not . or ..")
    return value


Name = Annotated[str, Field(description=NAME_RULE, examples=["researcher"])]
ServerId = Annotated[
    str,
    AfterValidator(_path_segment),
    Field(min_length=1, max_length=LONGEST_FILE, description="Printable, without slashes", examples=["atlassian"]),
]
FileName = Annotated[
    str,
    AfterValidator(_file_name),
    Field(min_length=1, max_length=LONGEST_FILE, description="Name of the file, without a folder", examples=["run.py"]),
]
Description = Annotated[str, Field(max_length=LONGEST_DESCRIPTION, examples=["Collects facts about a subject"])]
LongText = Annotated[str, Field(max_length=LONGEST_TEXT)]
Content = Annotated[str, Field(max_length=LONGEST_SCRIPT, description="Text of the file")]
Names = Annotated[list[ShortText], Field(max_length=MOST_NAMES)]
AgentTags = Annotated[list[Label], Field(max_length=MOST_NAMES, description="By which agents are listed")]
Kind: TypeAlias = Literal["autonomous", "procedural"]
Sort: TypeAlias = Literal["script", "mcp", "text"]
Schema = Annotated[dict[str, Any], Field(description="JSON Schema (Draft 7) of the parameters; `{}` removes it")]


class _Exact(Validated):
    model_config = ConfigDict(extra="forbid")


class McpReference(_Exact):
    """MCP server of the registry, with values for its configuration."""

    ref: Annotated[str, Field(max_length=LONGEST_FILE, description="Id of the server")]
    config: dict[str, Any] | None = None


class InlineProcess(_Exact):
    """MCP server as a process. It is stored, but no run can use it: name a server of the registry."""

    type: Literal["stdio"]
    command: str
    args: list[str]
    env: dict[str, str] | None = None


class InlineAddress(_Exact):
    """MCP server at an address. It is stored, but no run can use it: name a server of the registry."""

    type: Literal["http"]
    url: str
    headers: dict[str, str] | None = None


def _form_of(value: Any) -> str:
    # Models come when they are written.
    given = value if isinstance(value, dict) else vars(value) if isinstance(value, _Exact) else {}
    form = given.get("type")
    return form if "ref" not in given and form in ("stdio", "http") else "ref"


McpUse = Annotated[
    Annotated[McpReference, Tag("ref")]
    | Annotated[InlineProcess, Tag("stdio")]
    | Annotated[InlineAddress, Tag("http")],
    Discriminator(_form_of),
]
McpUses = Annotated[dict[ShortText, McpUse], Field(max_length=MOST_SERVERS, description="MCP servers by name")]


class DemandsOfEntry(Validated):
    """Properties that runs demand of a runner."""

    hostname: ShortText | None = None
    project_dir: ShortText | None = None
    executor_profile: ShortText | None = None
    executor_type: ShortText | None = None
    tags: Annotated[list[Label], Field(max_length=MOST_NAMES, default_factory=list)]


class AgentHook(_Exact):
    """Agent for the begin or the end of each run of another: kept and sent in blueprints; no process here runs it."""

    type: Literal["agent"]
    agent_name: ShortText
    on_error: Literal["block", "continue"] = "continue"
    timeout_seconds: Annotated[int, Field(ge=1, le=LONGEST_SECONDS)] = 300


class AgentHooks(_Exact):
    """Hooks of an agent."""

    on_run_start: AgentHook | None = None
    on_run_finish: AgentHook | None = None


class _AgentFields(Validated):
    script: Annotated[ShortText | None, Field(description="Script of a procedural agent")] = None
    parameters_schema: Schema | None = None
    output_schema: Annotated[dict[str, Any] | None, Field(description="JSON Schema of the result")] = None
    system_prompt: LongText | None = None
    mcp_servers: McpUses | None = None
    skills: Names | None = None
    tags: AgentTags | None = None
    capabilities: Names | None = None
    demands: DemandsOfEntry | None = None
    hooks: AgentHooks | None = None


class CreateAgent(_AgentFields):
    """Agent to create. That what it names exists is checked when it is resolved."""

    name: Name
    description: Description
    type: Kind = "autonomous"


class ChangeAgent(_AgentFields):
    """Fields of an agent to set; null keeps a field, an empty value removes it."""

    description: Description | None = None
    type: Kind | None = None


class SetAgentStatus(Validated):
    """Status of an agent."""

    status: Annotated[Literal["active", "inactive"], Field(description="For clients: runs of both are accepted")]


class _CapabilityFields(Validated):
    script: ShortText | None = None
    text: Annotated[LongText | None, Field(description="Added to the system prompt of agents")] = None
    mcp_servers: McpUses | None = None


class CreateCapability(_CapabilityFields):
    """Capability to create. Its script has to exist."""

    name: Name
    description: Description
    type: Annotated[Sort, Field(description="`text` has text alone, others text and what they are named after")] = (
        "text"
    )


class ChangeCapability(_CapabilityFields):
    """Fields of a capability to set; null keeps a field, an empty value removes it."""

    description: Description | None = None
    type: Sort | None = None


class CreateScript(Validated):
    """Script to create."""

    name: Name
    description: Description
    script_file: FileName
    script_content: Content
    parameters_schema: Schema | None = None
    demands: DemandsOfEntry | None = None


class ChangeScript(Validated):
    """Fields of a script to set; null keeps a field, an empty schema or empty demands are removed."""

    description: Description | None = None
    script_file: FileName | None = None
    script_content: Content | None = None
    parameters_schema: Schema | None = None
    demands: DemandsOfEntry | None = None


class ConfigField(Validated):
    """Field of a server's configuration. Only `required` has an effect."""

    type: ShortText = "string"
    description: Annotated[str | None, Field(max_length=LONGEST_DESCRIPTION)] = None
    required: bool = False
    sensitive: bool = False
    default: Any = None


ConfigSchema = Annotated[dict[ShortText, ConfigField], Field(max_length=MOST_FIELDS)]
Address = Annotated[str, Field(max_length=LONGEST_DESCRIPTION, examples=["http://localhost:9000/mcp"])]
Config = Annotated[dict[str, Any], Field(description="Values for agents that give none")]


class CreateMcpServer(_Exact):
    """MCP server to create."""

    id: ServerId
    name: Annotated[str, Field(max_length=LONGEST_FILE, examples=["Atlassian"])]
    description: Description | None = None
    url: Address
    config_schema: ConfigSchema | None = None
    default_config: Config | None = None


class ChangeMcpServer(_Exact):
    """Fields of an MCP server to set; null keeps a field."""

    name: Annotated[str | None, Field(max_length=LONGEST_FILE)] = None
    description: Description | None = None
    url: Address | None = None
    config_schema: ConfigSchema | None = None
    default_config: Config | None = None


class HookShown(Described):
    """Agent for the begin or the end of each run of another: kept and sent in blueprints; no process here runs it."""

    type: Literal["agent"]
    agent_name: Annotated[str, Field(examples=["checker"])]
    on_error: Literal["block", "continue"]
    timeout_seconds: Annotated[int, Field(examples=[300])]


class HooksShown(Described):
    """Hooks of an agent."""

    on_run_start: MayLack[HookShown] = None
    on_run_finish: MayLack[HookShown] = None


McpShown = Annotated[dict[str, dict[str, Any]], Field(description="MCP servers by name: id and configuration")]
SchemaShown = Annotated[MayLack[dict[str, Any]], Field(description="JSON Schema (Draft 7)")]


class Capability(Described):
    """Text, script or MCP servers that agents share. Absent fields are not set."""

    name: Name
    description: Description
    type: Sort
    script: Annotated[MayLack[str], Field(examples=["report"])] = None
    text: MayLack[str] = None
    mcp_servers: MayLack[McpShown] = None
    created_at: Timestamp
    modified_at: Timestamp


class CapabilitySummary(Described):
    """Capability, as the list shows it."""

    name: Name
    description: Description
    type: Sort
    has_script: bool
    script_name: str | None
    has_text: bool
    has_mcp: bool
    mcp_server_names: list[str]
    created_at: Timestamp
    modified_at: Timestamp


class Script(Described):
    """Script that procedural runners execute. Absent fields are not set."""

    name: Name
    description: Description
    script_file: Annotated[str, Field(examples=["run.py"])]
    script_content: str
    parameters_schema: SchemaShown = None
    demands: MayLack[Demands] = None
    created_at: Timestamp
    modified_at: Timestamp


class ScriptSummary(Described):
    """Script, as the list shows it."""

    name: Name
    description: Description
    script_file: Annotated[str, Field(examples=["run.py"])]
    has_parameters_schema: bool
    has_demands: bool
    demand_tags: list[str]
    created_at: Timestamp
    modified_at: Timestamp


class ConfigFieldShown(Described):
    """Field of a server's configuration. Only `required` has an effect."""

    type: str
    description: str | None
    required: bool
    sensitive: bool
    default: Any


class McpServer(Described):
    """MCP server of the registry, which agents name by its id."""

    id: Annotated[str, Field(examples=["atlassian"])]
    name: Annotated[str, Field(examples=["Atlassian"])]
    description: str | None
    url: Address
    config_schema: dict[str, ConfigFieldShown] | None
    default_config: dict[str, Any] | None
    created_at: Timestamp
    updated_at: Timestamp


class ConfigImported(Described):
    """Result of an import: numbers of entries, `replaced` those that the registry held before."""

    message: Annotated[str, Field(examples=["Configuration imported successfully"])]
    agents_imported: int
    capabilities_imported: int
    agents_replaced: int
    capabilities_replaced: int
