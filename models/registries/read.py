"""Read entries of the registries."""

from typing import Any, Final, cast

import orjson
from sqlalchemy import Connection, Row, text

from models.registries.records import (
    Agent,
    Capability,
    Entry,
    Kind,
    McpServer,
    ResolutionInputs,
    Script,
    entry_of,
)
from models.schema.sql import sql
from models.state.runs import iso

_KINDS: Final = {kind.name.lower(): f"'{kind}'" for kind in Kind}

_COLUMNS: Final = "e.kind, e.name, CAST(e.record AS text) AS record, NULL AS content, e.created_at, e.modified_at"

# One snapshot: an agent is never resolved with the capabilities of another moment.
_INPUTS = sql(
    """
    WITH agent AS (
        SELECT * FROM registry_entries WHERE kind = $agent AND name = CAST(:name AS text)
    ), capabilities AS (
        SELECT * FROM registry_entries
        WHERE kind = $capability
          AND name = ANY(ARRAY(SELECT json_array_elements_text(a.record -> 'capabilities') FROM agent a))
    ), referring AS (
        SELECT record FROM agent UNION ALL SELECT record FROM capabilities
    ), scripts AS (
        SELECT * FROM registry_entries
        WHERE kind = $script AND name = ANY(ARRAY(SELECT r.record ->> 'script' FROM referring r))
    ), servers AS (
        SELECT * FROM registry_entries
        WHERE kind = $mcp_server
          AND name = ANY(ARRAY(
            SELECT s.value ->> 'ref' FROM referring r CROSS JOIN json_each(r.record -> 'mcp_servers') s
          ))
    )
    SELECT $columns FROM (
        SELECT * FROM agent UNION ALL SELECT * FROM capabilities
        UNION ALL SELECT * FROM scripts UNION ALL SELECT * FROM servers
    ) e
    """,
    columns=_COLUMNS,
    **_KINDS,
)


def read_resolution_inputs(connection: Connection, agent_name: str) -> ResolutionInputs | None:
    """Return the agent of the registry with all entries that it and its capabilities name; None without such an agent.

    One statement. Agents of runners are not in the registry.
    """
    found: dict[Kind, dict[str, Entry]] = {kind: {} for kind in Kind}
    for row in connection.execute(_INPUTS, {"name": agent_name}):
        found[Kind(row.kind)][row.name] = as_entry(row)
    agent = found[Kind.AGENT].get(agent_name)
    if agent is None:
        return None
    return ResolutionInputs(
        cast("Agent", agent),
        cast("dict[str, Capability]", found[Kind.CAPABILITY]),
        cast("dict[str, Script]", found[Kind.SCRIPT]),
        cast("dict[str, McpServer]", found[Kind.MCP_SERVER]),
    )


_LIST = text("""
    SELECT e.kind, e.name, CAST(e.record AS text) AS record, NULL AS content, e.created_at, e.modified_at
    FROM registry_entries e WHERE e.kind = ANY(CAST(:kinds AS text[])) ORDER BY e.kind, e.name COLLATE "C"
""")

_GET = text("""
    SELECT e.kind, e.name, CAST(e.record AS text) AS record, e.content, e.created_at, e.modified_at
    FROM registry_entries e WHERE e.kind = CAST(:kind AS text) AND e.name = CAST(:name AS text)
""")


def list_entries(connection: Connection, *kinds: Kind) -> list[Entry]:
    """Return all entries of registries in one snapshot, by registry and name; scripts come without their content.

    Registries are bounded when they are written.
    """
    return [as_entry(row) for row in connection.execute(_LIST, {"kinds": list(kinds)})]


def get_entry(connection: Connection, kind: Kind, name: str) -> Entry | None:
    row = connection.execute(_GET, {"kind": kind, "name": name}).one_or_none()
    return None if row is None else as_entry(row)


def list_resolution_inputs(connection: Connection) -> list[ResolutionInputs]:
    """Return all agents by name, each with all capabilities and scripts of one snapshot; without servers."""
    found: dict[Kind, dict[str, Entry]] = {kind: {} for kind in Kind}
    for row in connection.execute(_LIST, {"kinds": [Kind.AGENT, Kind.CAPABILITY, Kind.SCRIPT]}):
        found[Kind(row.kind)][row.name] = as_entry(row)
    return [
        ResolutionInputs(
            cast("Agent", agent),
            cast("dict[str, Capability]", found[Kind.CAPABILITY]),
            cast("dict[str, Script]", found[Kind.SCRIPT]),
        )
        for agent in found[Kind.AGENT].values()
    ]


def as_entry(row: Row[Any]) -> Entry:
    """Return the entry of a row with kind, record as text, content and times."""
    created_at, modified_at = iso(row.created_at) or "", iso(row.modified_at) or ""
    return entry_of(Kind(row.kind), orjson.loads(row.record), created_at, modified_at, row.content)
