from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, cast
from urllib.parse import quote

from coordinator_client.calls import Calls
from coordinator_client.errors import Refused
from coordinator_client.registry_types import Agent

Registry: TypeAlias = Literal["agents", "capabilities", "scripts", "mcp-servers"]

# Field by which an entry is named, and values that remove what a new text of an entry does not have.
_KEYS: Final[Mapping[str, str]] = {"agents": "name", "capabilities": "name", "scripts": "name", "mcp-servers": "id"}
_EMPTY: Final[Mapping[str, Mapping[str, Any]]] = {
    "agents": {
        "script": "",
        "parameters_schema": {},
        "output_schema": {},
        "system_prompt": "",
        "mcp_servers": {},
        "skills": [],
        "tags": [],
        "capabilities": [],
        "demands": {},
        "hooks": {},
    },
    "capabilities": {"script": "", "text": "", "mcp_servers": {}},
    "scripts": {"parameters_schema": {}, "demands": {}},
    "mcp-servers": {},
}
_TIMES: Final = frozenset({"created_at", "modified_at", "updated_at"})


class RegistryCalls(Calls):
    """Calls that read and write agents, capabilities, scripts and MCP servers."""

    async def agents(self, *, tags: str | None = None) -> list[Agent]:
        """Return all agents: those of the registry with their capabilities merged, then those of runners.

        Args:
            tags: Only agents with all of these tags, separated by commas.

        Raises:
            Refused: 422 when an agent names a capability or script that does not exist.
        """
        return cast("list[Agent]", await self._call("GET", "/agents", query={"tags": tags}))

    async def agent(self, name: str, *, raw: bool = False) -> Agent:
        """Return an agent, with `raw` as it was written. Raises `Refused` 404 for an unknown one."""
        query = {"raw": "true" if raw else None}
        return cast("Agent", await self._call("GET", _path("agents", name), query=query, expects=("name",)))

    async def set_agent_status(self, name: str, status: Literal["active", "inactive"]) -> Agent:
        """Mark an agent of the registry; return it. Raises `Refused` 404 for an unknown one."""
        path = f"{_path('agents', name)}/status"
        return cast("Agent", await self._call("PATCH", path, body={"status": status}, expects=("name",)))

    async def entries(self, registry: Registry) -> list[dict[str, Any]]:
        """Return all entries of a registry by name: agents as `agents` does, capabilities and scripts as summaries."""
        return cast("list[dict[str, Any]]", await self._call("GET", f"/{registry}"))

    async def entry(self, registry: Registry, name: str) -> dict[str, Any]:
        """Return an entry, an agent as it was written. Raises `Refused` 404 for an unknown one."""
        query = {"raw": "true"} if registry == "agents" else None
        expects = (_KEYS[registry],)
        return cast("dict[str, Any]", await self._call("GET", _path(registry, name), query=query, expects=expects))

    async def put_entry(self, registry: Registry, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Create an entry, or give the one of its name exactly these fields; return it.

        Times are passed over, so what `entry` returned may be given. Optional fields of an MCP server that are not
        given keep their values. A status of an agent is set with a call of its own.

        Args:
            registry: Registry of the entry.
            fields: Fields of the entry, with its name (`id` of an MCP server).

        Raises:
            Refused: 400 for a name or fields that break a rule, 403 unless the caller is an admin, 422 for invalid
                fields.
            ValueError: The name is missing.
        """
        key = _KEYS[registry]
        name = str(fields.get(key) or "")
        if not name:
            raise ValueError(f"{key}: should be the text that names the entry")
        given = {field: value for field, value in fields.items() if field not in _TIMES}
        status = given.pop("status", None) if registry == "agents" else None
        try:
            entry = await self._call("POST", f"/{registry}", body=given, expects=(key,))
        except Refused as refused:
            if refused.status != 409:
                raise
            method = "PUT" if registry == "mcp-servers" else "PATCH"
            change = {**_EMPTY[registry], **{field: value for field, value in given.items() if field != key}}
            entry = await self._call(method, _path(registry, name), body=change, expects=(key,))
        if status is not None and entry["status"] != status:
            entry = await self.set_agent_status(name, status)
        return cast("dict[str, Any]", entry)

    async def delete_entry(self, registry: Registry, name: str) -> None:
        """Delete an entry.

        Args:
            registry: Registry of the entry.
            name: Its name (`id` of an MCP server).

        Raises:
            Refused: 404 for an unknown one; 409 for a capability or script that agents name.
        """
        await self._call("DELETE", _path(registry, name))


def _path(registry: str, name: str) -> str:
    return f"/{registry}/{quote(name, safe='')}"
