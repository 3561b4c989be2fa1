"""Agents of a registration, with names and schemas that can be used."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from app.http.bodies import Fault, Invalid, Loc
from app.http.body_limits import BodyParser
from app.inputs.agent_schemas import AgentSchema, BadSchema
from app.schemas import runners
from models.state.agents import RunnerAgent

_AT: Final[Loc] = ("body", "agents")
_SCHEMAS: Final = ("parameters_schema", "output_schema")


async def agents_of(given: runners.RegisterRunner, parser: BodyParser) -> tuple[RunnerAgent, ...]:
    """Return the agents of a registration. Raises Invalid for a name that comes twice, and for refused schemas."""
    asked = given.agents or ()
    agents = tuple(
        RunnerAgent(
            agent.name, agent.command, agent.description, _text(agent.parameters_schema), _text(agent.output_schema)
        )
        for agent in asked
    )
    schemas = "".join(schema for agent in agents for schema in (agent.parameters_schema, agent.output_schema) if schema)
    faults = await parser.run(lambda _: list(_faults(agents)), schemas.encode())
    if faults:
        raise Invalid(faults)
    return agents


def _faults(agents: Sequence[RunnerAgent]) -> Iterator[Fault]:
    seen = set[str]()
    for place, agent in enumerate(agents):
        if agent.name in seen:
            yield Fault("agent_name", (*_AT, place, "name"), "Should be another name than those before")
        seen.add(agent.name)
        for name in _SCHEMAS:
            text = getattr(agent, name)
            try:
                if text is not None:
                    AgentSchema(text)
            except BadSchema as refused:
                yield Fault("agent_schema", (*_AT, place, name), str(refused))


def _text(schema: dict[str, Any] | None) -> str | None:
    return None if schema is None else orjson.dumps(schema).decode()
