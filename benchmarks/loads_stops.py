import asyncio
from time import perf_counter

import orjson

from benchmarks.loads_runs import idle_poll, new_run, register
from benchmarks.meter import Meter
from benchmarks.wire import connect, request


async def stop_to_runner(urls: list[str], *, samples: int, uncounted: int = 10, fleet: int = 20) -> dict[str, float]:
    """Measure from just before a stop at the first replica to the end of the answer of its runner's poll, parked at the
    last.

    `fleet` more polls of other tags are parked, half at each replica. One sample at a time, each of a started run, with
    a pause of 20-60 ms in which the poll parks.
    """
    meter = Meter()
    client, runner = await connect(urls[0]), await connect(urls[-1])
    runner_id = await register(runner, "measured", ["measured"])
    idlers = [asyncio.create_task(idle_poll(urls[number % len(urls)], number)) for number in range(fleet)]
    poll = request("GET", f"/runner/runs?runner_id={runner_id}&wait=30")
    await asyncio.sleep(1)
    for number in range(samples + uncounted):
        if number == uncounted:
            meter.begin()
        await client.expect(201, request("POST", "/runs", new_run(["measured"])))
        run = orjson.loads(await runner.expect(200, poll))["run"]
        report = {"runner_id": runner_id, "claim_token": run["claim_token"]}
        await runner.expect(200, request("POST", f"/runner/runs/{run['run_id']}/started", report))
        parked = asyncio.create_task(runner.expect(200, poll))
        await asyncio.sleep(0.02 + 0.04 * (number * 0.618 % 1))
        began = perf_counter()
        stopped = asyncio.create_task(client.expect(200, request("POST", f"/runs/{run['run_id']}/stop")))
        body = await parked
        meter.note(began)
        await stopped
        if orjson.loads(body) != {"stop_sessions": [run["session_id"]]}:
            raise ValueError(body[:300])
        await runner.expect(200, request("POST", f"/runner/runs/{run['run_id']}/stopped", report))
    meter.end()
    for idler in idlers:
        idler.cancel()
    return meter.figures()
