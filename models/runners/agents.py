"""Agents that runners provide: one runner has a name, from its registration until it leaves."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from models.core.errors import AgentNameTaken
from models.runners.registration import Registration
from models.schema.columns import array_rows
from models.schema.sql import sql
from models.schema.tables import runner_agents
from models.state.agents import PROVIDES_AGENTS, RunnerAgent
from models.state.visibility import acts_for

# Held by a registration with agents from before its first row lock to its end, so that of two with one name the second
# sees what the first one stored.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('coordinator.agents', 0))")

_HOLDERS = sql(
    """
    SELECT a.name, a.runner_id FROM runner_agents a JOIN runners n ON n.runner_id = a.runner_id
    WHERE a.name = ANY(CAST(:names AS text[])) AND $provides
    """,
    provides=PROVIDES_AGENTS,
)

# Free the names also of runners that have left, whose rows are not dropped yet.
_FREE = text("""
    DELETE FROM runner_agents a
    USING (SELECT name FROM runner_agents
           WHERE runner_id = ANY(CAST(:runner_ids AS text[])) OR name = ANY(CAST(:names AS text[]))
           ORDER BY name FOR UPDATE) former
    WHERE a.name = former.name
""")

_COLUMNS: Final = ("name", "runner_id", "description", "command", "parameters_schema", "schema_hash", "output_schema")
_ADD = sql(
    "INSERT INTO runner_agents ($columns) SELECT $values FROM unnest($arrays) AS g($columns) ORDER BY g.name",
    **array_rows("g", runner_agents, _COLUMNS),
)

# A registration that takes the name over has its row locked, and deletes it itself.
_DROP = text("""
    DELETE FROM runner_agents a
    USING (SELECT name FROM runner_agents WHERE runner_id = ANY(CAST(:runner_ids AS text[]))
           ORDER BY name FOR UPDATE SKIP LOCKED) gone
    WHERE a.name = gone.name
""")


class AgentNames:
    """Holders of the agents' names while one transaction applies registrations."""

    def __init__(self, holders: Mapping[str, str]) -> None:
        self._holders = dict(holders)
        self._given: dict[str, Sequence[RunnerAgent]] = {}

    def taken(self, runner_id: str, item: Registration) -> AgentNameTaken | None:
        for agent in item.agents:
            holder = self._holders.get(agent.name)
            if holder is not None and holder != runner_id:
                return AgentNameTaken(agent.name, holder)
        return None

    def give(self, runner_id: str, item: Registration) -> None:
        """Replace the agents of a runner by those of its accepted registration."""
        others = {name: holder for name, holder in self._holders.items() if holder != runner_id}
        self._holders = others | {agent.name: runner_id for agent in item.agents}
        self._given[runner_id] = item.agents

    def write(self, conn: Connection) -> None:
        """Store the agents of all accepted registrations; the last locks of the transaction."""
        if not self._given:
            return
        rows = [(runner_id, agent) for runner_id, agents in self._given.items() for agent in agents]
        names = [agent.name for _, agent in rows]
        conn.execute(_FREE, {"runner_ids": list(self._given), "names": names})
        if rows:
            values = {name: [getattr(agent, name) for _, agent in rows] for name in _COLUMNS if name != "runner_id"}
            conn.execute(_ADD, values | {"runner_id": [runner_id for runner_id, _ in rows]})


def lock_agent_names(conn: Connection, items: Iterable[Registration]) -> AgentNames:
    """Return who has the names of the registrations' agents; without agents lock and read nothing.

    No other transaction takes a name before this one has ended.
    """
    names = sorted({agent.name for item in items for agent in item.agents})
    if not names:
        return AgentNames({})
    conn.execute(_LOCK)
    return AgentNames({row.name: row.runner_id for row in conn.execute(_HOLDERS, {"names": names})})


def drop_agents(conn: Connection, runner_ids: Collection[str]) -> None:
    """Drop the agents of runners that have left; waits for nothing."""
    if runner_ids:
        conn.execute(_DROP, {"runner_ids": sorted(runner_ids)})


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """Agent as the API shows it. ``command`` and ``runner_id`` are None for a caller that may not know them."""

    name: str
    description: str
    parameters_schema: str | None
    command: str | None
    runner_id: str | None


_LIST = sql(
    """
    SELECT a.name, coalesce(a.description, '') AS description, CAST(a.parameters_schema AS text) AS parameters_schema,
        a.command, a.runner_id, n.owner
    FROM runner_agents a JOIN runners n ON n.runner_id = a.runner_id
    WHERE $provides AND (CAST(:name AS text) IS NULL OR a.name = CAST(:name AS text))
    ORDER BY a.name LIMIT :most
    """,
    provides=PROVIDES_AGENTS,
)


def list_agents(conn: Connection, subject: str | None, *, most: int, name: str | None = None) -> list[AgentInfo]:
    """Return the agents of all runners by name, or the one of this name.

    Agents serve every owner's runs. Their command and runner are told to those who may act for the runner.
    """
    return [
        AgentInfo(
            row.name,
            row.description,
            row.parameters_schema,
            row.command if acts_for(subject, row.owner) else None,
            row.runner_id if acts_for(subject, row.owner) else None,
        )
        for row in conn.execute(_LIST, {"name": name, "most": most})
    ]
