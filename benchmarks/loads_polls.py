import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Final

import orjson

from benchmarks.loads_runs import new_run, register
from benchmarks.meter import Meter
from benchmarks.wire import Connection, Unexpected, connect, request

CONNECTED_AT_ONCE: Final = 100
SETTLE_SECONDS: Final = 5


async def parked_polls(
    urls: list[str], *, seconds: float, runner_ids: Sequence[str], wait: float, spread: float
) -> dict[str, float]:
    """Park one poll of `wait` seconds for each runner, renewed when it ends; the first ones begin over `spread`
    seconds.

    `count` is the number that ended within the window: with a long enough `wait`, none.
    """
    meter = Meter()
    connections: list[Connection] = []
    for first in range(0, len(runner_ids), CONNECTED_AT_ONCE):
        several = range(first, min(first + CONNECTED_AT_ONCE, len(runner_ids)))
        connections += await asyncio.gather(*(connect(urls[number % len(urls)]) for number in several))

    async def runner(number: int) -> None:
        await asyncio.sleep(spread * number / len(runner_ids))
        poll = request("GET", f"/runner/runs?runner_id={runner_ids[number]}&wait={wait:g}")
        while True:
            began = perf_counter()
            await connections[number].expect(204, poll)
            meter.note(began)

    polls = [asyncio.create_task(runner(number)) for number in range(len(runner_ids))]
    await meter.window(seconds, warm_up=spread + SETTLE_SECONDS)
    for poll in polls:
        if poll.done():
            poll.result()
        poll.cancel()
    return {"count": meter.count, "rate": meter.count / seconds}


async def heartbeats(urls: list[str], *, seconds: float, runner_ids: Sequence[str], every: float) -> dict[str, float]:
    meter = Meter()
    began_at = perf_counter() + 0.5
    most = 64

    async def beat(place: int) -> None:
        connection = await connect(urls[place % len(urls)])
        number = place
        while not meter.over:
            due = began_at + number * every / len(runner_ids)
            await asyncio.sleep(max(0.0, due - perf_counter()))
            began = perf_counter()
            body = {"runner_id": runner_ids[number % len(runner_ids)]}
            await connection.expect(200, request("POST", "/runner/heartbeat", body))
            meter.note(began)
            number += most

    async with asyncio.TaskGroup() as tasks:
        for place in range(most):
            tasks.create_task(beat(place))
        await meter.window(seconds, warm_up=2)
    return meter.figures()


async def claims(urls: list[str], *, samples: int, tag: str) -> dict[str, float]:
    meter = Meter()
    submitter, runner = await connect(urls[0]), await connect(urls[-1])
    runner_id = await register(runner, f"claims-{tag}", [tag])
    submission = request("POST", "/runs", new_run([tag]))
    poll = request("GET", f"/runner/runs?runner_id={runner_id}&wait=10")
    for number in range(samples + 20):
        if number == 20:
            meter.begin()
        await submitter.expect(201, submission)
        began = perf_counter()
        body = await runner.expect(200, poll)
        meter.note(began)
        run = orjson.loads(body)["run"]
        report = {"runner_id": runner_id, "claim_token": run["claim_token"]}
        await runner.expect(200, request("POST", f"/runner/runs/{run['run_id']}/completed", report))
    meter.end()
    return meter.figures()


async def claim_rate(urls: list[str], *, seconds: float, runners: int, batch: int, tag: str) -> dict[str, float]:
    meter = Meter()

    async def runner(number: int) -> None:
        connection = await connect(urls[number % len(urls)])
        runner_id = await register(connection, f"{tag}-{batch}-{number}-{perf_counter()}", [tag])
        poll = request("GET", f"/runner/runs?runner_id={runner_id}&wait=2&max={batch}")
        while not meter.over:
            began = perf_counter()
            status, body = await connection.call(poll)
            if status == 204:
                raise Unexpected("the backlog is empty")
            meter.note(began, body.count(b'"claim_token"'))

    async with asyncio.TaskGroup() as tasks:
        for number in range(runners):
            tasks.create_task(runner(number))
        await meter.window(seconds)
    return meter.figures()
