"""Rules of the registries: merge a change into an entry, and check the entry that results."""

from collections.abc import Mapping
from typing import Any, Final

from models.core.errors import BadEntry
from models.registries.records import Capability, CapabilityType, Entry, JsonObject, Kind, entry_of, record_of

NOUNS: Final[Mapping[Kind, str]] = {
    Kind.AGENT: "Agent",
    Kind.CAPABILITY: "Capability",
    Kind.SCRIPT: "Script",
    Kind.MCP_SERVER: "MCP server",
}

# Fields that an empty value removes.
_REMOVABLE: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.AGENT: frozenset(
        {
            "script", "parameters_schema", "output_schema", "system_prompt", "mcp_servers", "skills", "tags",
            "capabilities", "demands", "hooks",
        }
    ),
    Kind.CAPABILITY: frozenset({"script", "text", "mcp_servers"}),
    Kind.SCRIPT: frozenset({"parameters_schema", "demands"}),
    Kind.MCP_SERVER: frozenset(),
}  # fmt: skip

# Fields that are empty when all of their parts are.
_OF_PARTS: Final = frozenset({"demands", "hooks"})

# Fields of another type's capabilities, in the order in which they are refused.
_FOREIGN: Final[Mapping[str, tuple[str, ...]]] = {
    CapabilityType.SCRIPT: ("mcp_servers",),
    CapabilityType.MCP: ("script",),
    CapabilityType.TEXT: ("script", "mcp_servers"),
}


def new_entry(kind: Kind, fields: JsonObject, content: str | None = None) -> Entry:
    """Return the entry of a request that creates it: null and empty fields are left out."""
    return entry_of(kind, _kept(kind, fields), "", "", content)


def merged(kind: Kind, entry: Entry, change: JsonObject) -> Entry:
    """Return the entry with the fields of a change: null keeps a field, an empty value removes one that may lack."""
    record = record_of(entry)
    given = {name: value for name, value in change.items() if value is not None}
    content = given.pop("script_content", getattr(entry, "script_content", None))
    return entry_of(kind, _kept(kind, record | given), *_times(entry), content)


def fault_of(entry: Entry) -> BadEntry | None:
    """Return the rule that the entry breaks by itself."""
    if not isinstance(entry, Capability):
        return None
    for name in _FOREIGN[entry.type]:
        if getattr(entry, name) is not None:
            return BadEntry(f"Capability type '{entry.type}' cannot have '{name}'")
    return None


def script_of(entry: Entry) -> str | None:
    """Return the script that has to exist for the entry to be written. Those of agents need not."""
    return entry.script if isinstance(entry, Capability) else None


def _times(entry: Entry) -> tuple[str, str]:
    return entry.created_at, getattr(entry, "modified_at", "") or getattr(entry, "updated_at", "")


def _kept(kind: Kind, fields: Mapping[str, Any]) -> dict[str, Any]:
    removable = _REMOVABLE[kind]
    return {
        name: value
        for name, value in fields.items()
        if value is not None and not (name in removable and _is_empty(name, value))
    }


def _is_empty(name: str, value: Any) -> bool:
    if name in _OF_PARTS:
        return all(part is None or part == [] for part in value.values())
    return len(value) == 0
