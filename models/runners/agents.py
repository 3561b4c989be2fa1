"""Agents that runners provide: one runner has a name, from its registration until it leaves."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from models.core.errors import AgentNameTaken, TooManyAgents
from models.runners.registration import Registration
from models.schema.columns import array_rows
from models.schema.sql import sql
from models.schema.tables import runner_agents
from models.state.agents import PROVIDES_AGENTS, RunnerAgent
from models.state.visibility import acts_for

MOST_AGENTS_OF_OWNER: Final = 1_000
# Bytes of a list of agents, which ends before the first one that is too many.
MOST_LISTED: Final = 16 * 1024 * 1024

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

# Agents by runner, of all runners of these owners; no owner is ''.
_NUMBERS = sql(
    """
    SELECT a.runner_id, n.owner, count(*) AS number FROM runner_agents a JOIN runners n ON n.runner_id = a.runner_id
    WHERE coalesce(n.owner, '') = ANY(CAST(:owners AS text[])) AND $provides
    GROUP BY a.runner_id, n.owner
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
    """Holders of the agents' names while one transaction applies registrations.

    ``numbers``: the owner of each runner that has agents, and how many it has.
    """

    def __init__(self, holders: Mapping[str, str], numbers: Mapping[str, tuple[str | None, int]]) -> None:
        self._holders = dict(holders)
        self._numbers = dict(numbers)
        self._given: dict[str, Sequence[RunnerAgent]] = {}

    def refused(self, runner_id: str, item: Registration) -> AgentNameTaken | TooManyAgents | None:
        """Return the reason to refuse the registration; without one its agents count for those that come after it."""
        for agent in item.agents:
            holder = self._holders.get(agent.name)
            if holder is not None and holder != runner_id:
                return AgentNameTaken(agent.name, holder)
        others = sum(
            number for other, (owner, number) in self._numbers.items() if other != runner_id and owner == item.owner
        )
        if item.agents and others + len(item.agents) > MOST_AGENTS_OF_OWNER:
            return TooManyAgents(MOST_AGENTS_OF_OWNER)
        # Another check may refuse it yet: then the runner keeps those that it has.
        _, former = self._numbers.get(runner_id, (item.owner, 0))
        self._numbers[runner_id] = (item.owner, max(former, len(item.agents)))
        return None

    def give(self, runner_id: str, item: Registration) -> None:
        """Replace the agents of a runner by those of its accepted registration."""
        others = {name: holder for name, holder in self._holders.items() if holder != runner_id}
        self._holders = others | {agent.name: runner_id for agent in item.agents}
        self._numbers[runner_id] = (item.owner, len(item.agents))
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


def lock_agent_names(conn: Connection, items: Sequence[Registration]) -> AgentNames:
    """Return who has the names of the registrations' agents, and how many agents their owners' runners have.

    Without agents lock and read nothing. No other transaction takes a name before this one has ended.
    """
    names = sorted({agent.name for item in items for agent in item.agents})
    if not names:
        return AgentNames({}, {})
    conn.execute(_LOCK)
    owners = sorted({item.owner or "" for item in items if item.agents})
    return AgentNames(
        {row.name: row.runner_id for row in conn.execute(_HOLDERS, {"names": names})},
        {row.runner_id: (row.owner, row.number) for row in conn.execute(_NUMBERS, {"owners": owners})},
    )


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
    SELECT name, description, parameters_schema, command, runner_id, owner
    FROM (
        SELECT a.name, coalesce(a.description, '') AS description,
            CAST(a.parameters_schema AS text) AS parameters_schema, a.command, a.runner_id, n.owner,
            sum(octet_length(a.command) + octet_length(coalesce(a.description, ''))
                + octet_length(coalesce(CAST(a.parameters_schema AS text), ''))) OVER (ORDER BY a.name) AS bytes
        FROM runner_agents a JOIN runners n ON n.runner_id = a.runner_id
        WHERE $provides AND (CAST(:name AS text) IS NULL OR a.name = CAST(:name AS text))
        ORDER BY a.name LIMIT :most) listed
    WHERE bytes <= :most_bytes
    ORDER BY name
    """,
    provides=PROVIDES_AGENTS,
)


def list_agents(conn: Connection, subject: str | None, *, most: int, name: str | None = None) -> list[AgentInfo]:
    """Return the agents of all runners by name, up to 16 MiB of them, or the one of this name.

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
        for row in conn.execute(_LIST, {"name": name, "most": most, "most_bytes": MOST_LISTED})
    ]
