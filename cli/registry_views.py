from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cli.tables import print_table
from cli.views import show_json
from runtime.terminal import say

_HEADS: Final[Mapping[str, Sequence[str]]] = {
    "agents": ("name", "type", "status", "tags", "description"),
    "capabilities": ("name", "type", "script", "servers", "description"),
    "scripts": ("name", "file", "tags", "description"),
    "mcp-servers": ("id", "name", "url", "description"),
}
_ROWS: Final[Mapping[str, Callable[[Mapping[str, Any]], Sequence[Any]]]] = {
    "agents": lambda entry: (
        entry["name"],
        entry["type"],
        entry["status"],
        ", ".join(entry["tags"]),
        _cut(entry["description"]),
    ),
    "capabilities": lambda entry: (
        entry["name"],
        entry["type"],
        entry["script_name"],
        ", ".join(entry["mcp_server_names"]),
        _cut(entry["description"]),
    ),
    "scripts": lambda entry: (
        entry["name"],
        entry["script_file"],
        ", ".join(entry["demand_tags"]),
        _cut(entry["description"]),
    ),
    "mcp-servers": lambda entry: (entry["id"], entry["name"], entry["url"], _cut(entry["description"] or "")),
}
_LONGEST: Final = 100


def show_entries(registry: str, entries: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        show_json(entries)
        return
    if not entries:
        say(f"no {registry}")
        return
    print_table(_HEADS[registry], map(_ROWS[registry], entries))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
