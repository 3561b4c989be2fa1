"""Procedural agents of runners: as a registration gives them, and as submissions read them."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from models.schema.sql import sql

# Condition on a runner ``n``: it still provides agents. A lost or stale one does.
PROVIDES_AGENTS: Final = "n.left_at IS NULL AND n.leave_told_at IS NULL"


@dataclass(frozen=True, slots=True)
class RunnerAgent:
    """Agent that a registration gives. The schemas are JSON text; None: any parameters."""

    name: str
    command: str
    description: str | None = None
    parameters_schema: str | None = None
    output_schema: str | None = None

    @property
    def schema_hash(self) -> str | None:
        return None if self.parameters_schema is None else hashlib.sha256(self.parameters_schema.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class OwnedAgent:
    """Agent as a submission needs it: its schema, and the properties of its runner that the run will demand."""

    name: str
    parameters_schema: str | None
    schema_hash: str | None
    hostname: str
    project_dir: str
    executor_profile: str


_READ = sql(
    """
    SELECT a.name, CAST(a.parameters_schema AS text) AS parameters_schema, a.schema_hash,
        n.hostname, n.project_dir, n.executor_profile
    FROM runner_agents a JOIN runners n ON n.runner_id = a.runner_id
    WHERE a.name = ANY(CAST(:names AS text[])) AND $provides
    """,
    provides=PROVIDES_AGENTS,
)


def read_agents(conn: Connection, names: Collection[str]) -> dict[str, OwnedAgent | None]:
    """Return the agent of each name, None where no runner provides one; no query without names."""
    if not names:
        return {}
    found = {row.name: OwnedAgent(*row) for row in conn.execute(_READ, {"names": sorted(names)})}
    return {name: found.get(name) for name in names}
