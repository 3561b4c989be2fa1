"""Check that the checks of a batch let other requests go on, and which of them are made before the first try."""

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import suppress

from app.http.body_limits import BodyParser
from app.inputs.parameter_checks import ParameterChecks
from models.core.errors import SchemaUnchecked
from models.runs.submission import NewRun, Submitted
from tests.support.db_verbs import start_submission
from tests.support.runner_agents import CITY, SCHEMA

HASH = hashlib.sha256(SCHEMA.encode()).hexdigest()


def city() -> NewRun:
    return start_submission(agent_name="reporter", parameters=CITY, prompt_only=False)


async def decide(item: NewRun) -> Submitted | SchemaUnchecked:
    """Answer as the verb does where a runner provides the agent."""
    if item.satisfied_schema == HASH:
        return Submitted(item.run_id, item.own_session)
    return SchemaUnchecked("reporter", HASH, SCHEMA, item.parameters)


def test_presumed_checks_of_a_batch_yield_to_other_requests() -> None:
    async def scenario() -> int:
        parser = BodyParser()
        checks = ParameterChecks(parser)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async def write(items: Sequence[NewRun]) -> list[Submitted | SchemaUnchecked]:
            ticker.cancel()
            return [await decide(item) for item in items]

        await checks.submit(city(), decide)
        ticker = asyncio.create_task(tick())
        outcomes = await checks.submit_all([city() for _ in range(200)], write)
        assert all(isinstance(outcome, Submitted) for outcome in outcomes)
        with suppress(asyncio.CancelledError):
            await ticker
        parser.close()
        return ticks

    assert asyncio.run(scenario()) >= 200
