from collections.abc import Collection

from sqlalchemy import Connection

from models.registries.blueprints.resolve import RegistryAgent
from models.registries.read import read_resolution_inputs
from models.schema.sql import sql

# Look first which of the names there are, so that names that mean no agent cost one statement together.
_THERE = sql("SELECT name FROM registry_entries WHERE kind = 'agents' AND name = ANY(CAST(:names AS text[]))")


def read_registry_agents(conn: Connection, names: Collection[str]) -> dict[str, RegistryAgent]:
    """Return the agents of the registry among the names, each in one version; no query without names."""
    if not names:
        return {}
    agents: dict[str, RegistryAgent] = {}
    for name in conn.execute(_THERE, {"names": sorted(names)}).scalars().all():
        inputs = read_resolution_inputs(conn, name)
        if inputs is not None:
            agents[name] = RegistryAgent(inputs)
    return agents
