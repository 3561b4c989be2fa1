"""Provide a verb that writes numbers, and the event loop in which a web process would run it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.writes.attempts import Attempts
from models.core.errors import CoordinatorError, NotFound
from runtime.postgres import async_engine
from runtime.settings import Settings

Scenario = Callable[[Attempts, AsyncEngine], Awaitable[None]]


def run(settings: Settings, scenario: Scenario) -> None:
    async def main() -> None:
        web = async_engine(settings)
        try:
            await asyncio.wait_for(scenario(Attempts(web), web), 60)
        finally:
            await web.dispose()

    asyncio.run(main())


class Writer:
    """Verb that inserts numbers, remembers its batches and can be paused."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, conn: Connection, items: Sequence[int]) -> list[int | CoordinatorError]:
        self.batches.append(list(items))
        conn.execute(text("SELECT pg_sleep(0.02)"))
        for n in items:
            conn.execute(text("INSERT INTO written VALUES (:n) ON CONFLICT DO NOTHING"), {"n": n})
        return [NotFound("run", str(n)) if n < 0 else n for n in items]
