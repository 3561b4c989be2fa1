"""Registrations that provide procedural agents."""

from typing import Any

from models.runners.register import Registered, RegisterResult, register_runners
from models.runners.registration import Registration
from models.state.agents import RunnerAgent
from tests.support.db_verbs import DbVerbs, Runner

SCHEMA = '{"type":"object","required":["city"]}'
CITY = '{"city":"Bonn"}'
_ADD = """
    INSERT INTO runner_agents (name, runner_id, command)
    SELECT 'n' || lpad(i::text, 4, '0'), :runner_id, repeat('x', :size) FROM generate_series(1, :number) i
    RETURNING name
"""


def offer(name: str = "host", *agents: RunnerAgent | str, **values: Any) -> Registration:
    """Build the registration of a procedural runner; an agent given by its name takes any parameters."""
    given = tuple(agent if isinstance(agent, RunnerAgent) else RunnerAgent(agent, "run") for agent in agents)
    return Registration(name, "/project", "profile", executor_type="procedural", agents=given, **values)


def register(db: DbVerbs, *items: Registration) -> list[RegisterResult]:
    return db.do(register_runners, items)


def provide(db: DbVerbs, *agents: RunnerAgent | str, name: str = "host", **values: Any) -> Runner:
    """Register a runner of another identity with these agents."""
    (result,) = register(db, offer(name, *agents, **values))
    assert isinstance(result, Registered), result
    return runner_at(db, name)


def runner_at(db: DbVerbs, name: str) -> Runner:
    """Return the runner of this hostname."""
    (row,) = db.rows("SELECT runner_id, registration FROM runners WHERE hostname = :name", name=name)
    return Runner(row.runner_id, row.registration)


def provided(db: DbVerbs) -> dict[str, str]:
    """Return the stored agents with their runners."""
    return {row.name: row.runner_id for row in db.rows("SELECT name, runner_id FROM runner_agents ORDER BY name")}


def add_agents(db: DbVerbs, runner_id: str, number: int, size: int = 1) -> None:
    """Store agents n0001 and so on with commands of this size."""
    db.rows(_ADD, runner_id=runner_id, size=size, number=number)
