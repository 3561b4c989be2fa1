import asyncio
import random
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Final

import orjson

from benchmarks.loads_runs import new_run
from benchmarks.meter import Meter
from benchmarks.wire import Connection, Unexpected, connect, request
from models.auth.keys import mint_token

CALM_CONNECTIONS: Final = 16
READS: Final = 3


async def calm(urls: list[str], *, seconds: float, token: str, rate: float, warm_up: float = 1.0) -> dict[str, float]:
    """Submit at `rate` a second, at random moments, with READS reads of the run after each; all of it counts.

    A request's latency begins when it was due, whether a connection was free for it or not.
    """
    meter = Meter()
    submission = request("POST", "/runs", new_run(), token=token)
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for number in range(CALM_CONNECTIONS):
        free.put_nowait(await connect(urls[number % len(urls)]))

    async def ask(status: int, content: bytes, step: str) -> bytes:
        began = perf_counter()
        connection = await free.get()
        body = await connection.expect(status, content)
        free.put_nowait(connection)
        meter.step(step, began)
        meter.note(began)
        return body

    async def submit_and_look() -> None:
        run_id = orjson.loads(await ask(201, submission, "submit"))["run_id"]
        for _ in range(READS):
            await ask(200, request("GET", f"/runs/{run_id}", token=token), "read")

    async with asyncio.TaskGroup() as tasks:
        window = tasks.create_task(meter.window(seconds, warm_up=warm_up))
        async for _ in _moments(rate, meter):
            tasks.create_task(submit_and_look())
        await window
    return meter.figures()


async def _moments(rate: float, meter: Meter) -> AsyncIterator[None]:
    chance = random.Random(1)
    due = perf_counter()
    while not meter.over:
        due += chance.uniform(0.5, 1.5) / rate
        await asyncio.sleep(max(0.0, due - perf_counter()))
        yield


async def flood(urls: list[str], *, seconds: float, token: str, clients: int) -> dict[str, float]:
    """Run `clients` that ask again as soon as they are answered: half of them submit, the others read or guess tokens.

    `refused` is the share that was answered 429 or 403. Raises Unexpected at any other answer but a success.
    """
    meter = Meter()
    submission = request("POST", "/runs", new_run(), token=token)
    read = request("GET", "/runs?limit=10", token=token)
    refused = 0

    async def client(number: int) -> None:
        nonlocal refused
        connection = await connect(urls[number // 4 % len(urls)])
        while not meter.over:
            guess = request("GET", "/runs?limit=10", token=mint_token()[0]) if number % 4 == 3 else b""
            content, good = (
                (submission, (201, 429)),
                (submission, (201, 429)),
                (read, (200,)),
                (guess, (403,)),
            )[number % 4]
            began = perf_counter()
            status, body = await connection.call(content)
            if status not in good:
                raise Unexpected(f"{status} to {content[:40]!r}: {body[:300]!r}")
            refused += status in {403, 429}
            meter.note(began)

    async with asyncio.TaskGroup() as tasks:
        for number in range(clients):
            tasks.create_task(client(number))
        await meter.window(seconds)
    figures = meter.figures()
    return {**figures, "refused": refused / figures["count"]}
