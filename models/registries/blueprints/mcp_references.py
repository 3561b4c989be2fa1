"""Resolve the MCP servers of an agent by the registry (step C of a blueprint)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from models.core.errors import CoordinatorError
from models.registries.blueprints.placeholders import Substitution, has_placeholder
from models.registries.records import McpServer

_NOT_FOUND: Final = "Not found in registry"
_INLINE: Final = "(inline)"
_INLINE_REASON: Final = "Inline format not supported. Use ref format with registry entry."


@dataclass(frozen=True)
class McpReferenceUnresolved(CoordinatorError):
    server_name: str
    ref: str
    reason: str

    def __str__(self) -> str:
        return f"Failed to resolve MCP server '{self.server_name}' (ref: {self.ref}): {self.reason}"


@dataclass(frozen=True)
class McpConfigMissing(CoordinatorError):
    server_name: str
    missing_fields: tuple[str, ...]

    def __str__(self) -> str:
        return f"MCP server '{self.server_name}' missing required config: {', '.join(self.missing_fields)}"


def resolve_mcp_servers(
    servers: Mapping[str, Any], entries: Mapping[str, McpServer], substitution: Substitution
) -> dict[str, Any] | McpReferenceUnresolved | McpConfigMissing:
    """Return each server as ``{"url", "config"}`` with the placeholders of both filled in. Raises TooLarge."""
    resolved: dict[str, Any] = {}
    for name, given in servers.items():
        if not isinstance(given, Mapping) or "ref" not in given:
            return McpReferenceUnresolved(name, _INLINE, _INLINE_REASON)
        entry = entries.get(given["ref"])
        if entry is None:
            return McpReferenceUnresolved(name, str(given["ref"]), _NOT_FOUND)
        config = substitution.value({**(entry.default_config or {}), **(given.get("config") or {})})
        missing = tuple(_missing(entry, config))
        if missing:
            return McpConfigMissing(name, missing)
        resolved[name] = {"url": substitution.text(entry.url), "config": config}
    return resolved


def _missing(entry: McpServer, config: Mapping[str, Any]) -> Iterator[str]:
    for name, described in (entry.config_schema or {}).items():
        value = config.get(name)
        if described.required and (value is None or (isinstance(value, str) and has_placeholder(value))):
            yield name
