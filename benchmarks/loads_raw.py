"""Raw limit: the same rows, written and claimed by the tightest psycopg loop on the same Postgres, without HTTP.

One statement a step, each in its own transaction, as a coordinator without group commit would do at best; with `batch`,
that many rows in each. Each step writes as many event rows as the coordinator does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final, TypeAlias

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from benchmarks.meter import Meter
from models.core.ids import new_id

Postgres: TypeAlias = AsyncConnection[TupleRow]
Step: TypeAlias = Callable[[Postgres], Awaitable[int]]

FRAME: Final = '{"session": {"session_id": "ses_0", "status": "pending", "created_at": null, "project_dir": null}}'

_SUBMIT: Final = """
    WITH s AS (
        INSERT INTO sessions (session_id, incarnation, status, next_run)
        SELECT id, 'raw', 'pending', 2 FROM unnest(%(ids)s::text[]) id
    ), e AS (
        INSERT INTO events (event_uid, kind, session_id, run_id, frame)
        SELECT 'submit' || id || n, 'session_created', id, id, %(frame)s::json
        FROM unnest(%(ids)s::text[]) id, generate_series(1, 2) n
    )
    INSERT INTO runs (run_id, session_id, session_seq, type, parameters, execution_mode, demands, profile_id, ready,
        no_match_timeout_seconds)
    SELECT id, id, 1, 'start_session', '{"prompt": "raw"}', 'sync', '{"tags":[]}', 1, true, 300
    FROM unnest(%(ids)s::text[]) id
"""

_CLAIM: Final = """
    WITH picked AS MATERIALIZED (
        SELECT run_id FROM runs WHERE profile_id = 1 AND status = 'pending' AND ready
        ORDER BY priority DESC, run_id LIMIT %(most)s FOR NO KEY UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE runs r SET status = 'claimed', ready = false, claim_token = %(token)s, claimed_at = now(),
            runner_id = 'raw'
        FROM picked WHERE r.run_id = picked.run_id RETURNING r.run_id
    ), e AS (
        INSERT INTO events (event_uid, kind, session_id, run_id, frame)
        SELECT 'claim' || run_id, 'run_updated', run_id, run_id, %(frame)s::json FROM taken
    )
    SELECT run_id FROM taken
"""

_STARTED: Final = """
    WITH taken AS (
        UPDATE runs SET status = 'running', started_at = now(), attempt = 1
        WHERE run_id = ANY(%(ids)s::text[]) AND claim_token = %(token)s RETURNING run_id
    ), s AS (
        UPDATE sessions SET status = 'running' WHERE session_id = ANY(%(ids)s::text[])
    )
    INSERT INTO events (event_uid, kind, session_id, run_id, frame)
    SELECT 'started' || run_id || n, 'event', run_id, run_id, %(frame)s::json FROM taken, generate_series(1, 3) n
"""

_COMPLETED: Final = """
    WITH taken AS (
        UPDATE runs SET status = 'completed', completed_at = now()
        WHERE run_id = ANY(%(ids)s::text[]) AND claim_token = %(token)s RETURNING run_id
    ), s AS (
        UPDATE sessions SET status = 'finished' WHERE session_id = ANY(%(ids)s::text[])
    )
    INSERT INTO events (event_uid, kind, session_id, run_id, frame)
    SELECT 'completed' || run_id || n, 'event', run_id, run_id, %(frame)s::json FROM taken, generate_series(1, 3) n
"""

_APPEND: Final = """
    INSERT INTO events (event_uid, kind, event_type, session_id, frame)
    VALUES (%(uid)s, 'event', 'message', 'ses_raw', %(frame)s::json)
"""


async def raw_submissions(urls: list[str], *, seconds: float, connections: int, batch: int) -> dict[str, float]:
    return await _loop(urls[0], seconds, connections, lambda connection: _submit(connection, batch))


async def raw_lives(urls: list[str], *, seconds: float, connections: int, batch: int) -> dict[str, float]:
    async def life(connection: Postgres) -> int:
        await _submit(connection, batch)
        ids, token = await _claim(connection, batch)
        for statement in (_STARTED, _COMPLETED):
            await connection.execute(statement, {"ids": ids, "token": token, "frame": FRAME})
        return len(ids)

    return await _loop(urls[0], seconds, connections, life)


async def raw_hand_over(urls: list[str], *, seconds: float) -> dict[str, float]:
    """Insert one run, then claim it, on one connection: the time that Postgres alone needs between submission and
    claim.
    """

    async def hand_over(connection: Postgres) -> int:
        await _submit(connection, 1)
        return len((await _claim(connection, 1))[0])

    return await _loop(urls[0], seconds, 1, hand_over)


async def raw_events(urls: list[str], *, seconds: float) -> dict[str, float]:
    async def append(connection: Postgres) -> int:
        await connection.execute(_APPEND, {"uid": new_id(""), "frame": FRAME})
        await connection.execute("SELECT sequence_feed()")
        await connection.execute("SELECT frame FROM events ORDER BY feed_pos DESC NULLS LAST LIMIT 1")
        return 1

    return await _loop(urls[0], seconds, 1, append)


async def _submit(connection: Postgres, batch: int) -> int:
    await connection.execute(_SUBMIT, {"ids": [new_id("raw_") for _ in range(batch)], "frame": FRAME})
    return batch


async def _claim(connection: Postgres, most: int) -> tuple[list[str], str]:
    token = new_id("")
    rows = await connection.execute(_CLAIM, {"most": most, "token": token, "frame": FRAME})
    return [row[0] for row in await rows.fetchall()], token


async def _loop(url: str, seconds: float, connections: int, step: Step) -> dict[str, float]:
    meter = Meter()

    async def worker() -> None:
        async with await Postgres.connect(url, autocommit=True) as connection:
            while not meter.over:
                began = perf_counter()
                meter.note(began, await step(connection))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(worker())
        await meter.window(seconds)
    return meter.figures()
