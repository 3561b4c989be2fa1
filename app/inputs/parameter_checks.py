"""Submissions of agents with a schema: the verb names the schema, this process checks it, the verb compares the hash.

Which agents there are is decided in the transaction of the submission alone, so a process needs no list of them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias, TypeVar

import orjson
from cachetools import LRUCache

from app.http.body_limits import BodyParser
from app.http.problems import BadRequest
from app.inputs.agent_schemas import AgentSchema, BadSchema
from app.inputs.parameters import NO_AGENT, check_parameters, refused_parameters, violation
from app.writes.attempts import Unavailable
from models.core.errors import CoordinatorError, NotFound, PromptRequired, SchemaUnchecked
from models.runs.replay import Replay
from models.runs.submission import NewRun, Submitted
from models.schedules.put import PutSchedule

Item = TypeVar("Item", NewRun, Replay, PutSchedule)
Result = TypeVar("Result")
Answer: TypeAlias = Submitted | CoordinatorError

# A schema seldom changes while parameters are checked; more changes than that are answered 503.
MOST_CHECKS: Final = 3
SCHEMAS: Final = 256
# Parameters up to so many characters are checked before the first try against the schema that their agent had last.
PRESUMED_AT_MOST: Final = 4 * 1024


class ParameterChecks:
    """Schemas that were compiled lately, by their hashes, and the hash that each agent had last: only a guess."""

    def __init__(self, parser: BodyParser) -> None:
        self._parser = parser
        self._schemas: LRUCache[str, AgentSchema] = LRUCache(SCHEMAS)
        self._last: LRUCache[str, str] = LRUCache(4 * SCHEMAS)

    async def submit(
        self, item: Item, write: Callable[[Item], Awaitable[Result | CoordinatorError]]
    ) -> Result | CoordinatorError:
        """Write the item, checked as often as the verb asks for it. Raises BadRequest for refused parameters."""
        outcome = await write(item)
        for _ in range(MOST_CHECKS):
            if isinstance(outcome, PromptRequired):
                check_parameters(orjson.loads(outcome.parameters), outcome.agent_name or NO_AGENT)
            if not isinstance(outcome, SchemaUnchecked):
                break
            item = await self._checked(item, outcome)
            outcome = await write(item)
        return outcome

    async def submit_all(
        self, items: Sequence[NewRun], write: Callable[[Sequence[NewRun]], Awaitable[Sequence[Answer | Unavailable]]]
    ) -> list[Answer | Unavailable | BadRequest]:
        """Write the items in their order; an item that found nothing is written again after one that was checked."""
        tried: list[NewRun] = []
        for item in items:
            tried.append(self.presume(item))
            if self._presumed(item) is not None:
                # Let other requests go on after a check.
                await asyncio.sleep(0)
        outcomes: list[Answer | Unavailable | BadRequest] = [*await write(tried)]
        for _ in range(MOST_CHECKS):
            again: list[int] = []
            for place, outcome in enumerate(outcomes):
                try:
                    if isinstance(outcome, PromptRequired):
                        check_parameters(orjson.loads(outcome.parameters), outcome.agent_name or NO_AGENT)
                    elif isinstance(outcome, SchemaUnchecked):
                        tried[place] = await self._checked(tried[place], outcome)
                        again.append(place)
                    elif again and isinstance(outcome, NotFound):
                        again.append(place)
                except BadRequest as refused:
                    outcomes[place] = refused
            if not again:
                break
            for place, outcome in zip(again, await write([tried[place] for place in again]), strict=True):
                outcomes[place] = outcome
        return outcomes

    def presume(self, run: NewRun) -> NewRun:
        """Return the run as checked against the schema that its agent had last, if it satisfies that."""
        known = self._presumed(run)
        if known is None or not self._schemas[known].accepts(run.parameters.encode()):
            return run
        return replace(run, satisfied_schema=known)

    def _presumed(self, run: NewRun) -> str | None:
        """Return the hash of the schema to presume, None where nothing is to be checked yet."""
        if run.agent_name is None or len(run.parameters) > PRESUMED_AT_MOST:
            return None
        known = self._last.get(run.agent_name)
        return known if known in self._schemas else None

    async def _checked(self, item: Item, found: SchemaUnchecked) -> Item:
        schema = self._schemas.get(found.schema_hash) or _compiled(found)
        self._schemas[found.schema_hash] = schema
        self._last[found.agent_name] = found.schema_hash
        # Let other requests go on between the checks of a batch.
        await asyncio.sleep(0)
        violations = await self._parser.run(schema.violations, found.parameters.encode())
        if violations:
            raise refused_parameters(found.agent_name, violations, schema.shown)
        return replace(item, satisfied_schema=found.schema_hash)


def _compiled(found: SchemaUnchecked) -> AgentSchema:
    try:
        return AgentSchema(found.schema)
    except BadSchema:
        # Stored by a release with other bounds.
        unusable = violation("$", "cannot be checked: the agent's schema is not accepted any more", "")
        raise refused_parameters(found.agent_name, [unusable], orjson.loads(found.schema)) from None
