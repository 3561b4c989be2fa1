import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import orjson

from benchmarks.meter import Meter
from benchmarks.wire import Connection, connect, request

PROMPT = "Summarise the findings of the last three reports and say which of them contradict each other."
POLL_SECONDS = 2


def new_run(tags: Sequence[str] = ()) -> dict[str, Any]:
    run: dict[str, Any] = {"type": "start_session", "parameters": {"prompt": PROMPT}}
    if tags:
        run["additional_demands"] = {"tags": list(tags)}
    return run


async def register(connection: Connection, name: str, tags: Sequence[str] = ()) -> str:
    runner = {
        "hostname": name,
        "project_dir": "/srv/work",
        "executor_profile": "bench",
        "executor": {"type": "autonomous", "command": "bench"},
        "tags": list(tags),
        "instance_id": name,
    }
    body = await connection.expect(200, request("POST", "/runner/register", runner))
    return str(orjson.loads(body)["runner_id"])


async def submissions(urls: list[str], *, seconds: float, clients: int, batch: int = 1) -> dict[str, float]:
    """Run `clients` that each submit again as soon as they are answered, `batch` runs a request.

    Counts runs that were answered 201; latencies are those of requests.
    """
    meter = Meter()
    alone = request("POST", "/runs", new_run())
    together = request("POST", "/runs/batch", {"runs": [new_run()] * batch})

    async def client(number: int) -> None:
        connection = await connect(urls[number % len(urls)])
        while not meter.over:
            began = perf_counter()
            if batch == 1:
                await connection.expect(201, alone)
            else:
                body = await connection.expect(200, together)
                if body.count(b'"code":201') != batch:
                    raise ValueError(body[:300])
            meter.note(began, batch)

    async with asyncio.TaskGroup() as tasks:
        for number in range(clients):
            tasks.create_task(client(number))
        await meter.window(seconds)
    return meter.figures()


class Backlog:
    def __init__(self, url: str, least: int) -> None:
        self._url = url
        self._least = least
        self._missing = asyncio.Event()
        self.ample = asyncio.Event()
        self.pending = 0

    def took(self, count: int) -> None:
        self.pending -= count
        if self.pending < self._least:
            self._missing.set()

    async def keep(self) -> None:
        connection = await connect(self._url)
        hundred = request("POST", "/runs/batch", {"runs": [new_run()] * 100})
        while True:
            while self.pending < self._least:
                await connection.expect(200, hundred)
                self.pending += 100
            self.ample.set()
            self._missing.clear()
            await self._missing.wait()


async def lives(urls: list[str], *, seconds: float, runners: int, batch: int = 1) -> dict[str, float]:
    """Run `runners` that claim, report `started` and report `completed`, three requests a life, or three for `batch`
    lives.

    A life counts when its `completed` is answered 200; its latency is from the poll to that answer. Submissions run
    beside it, uncounted, through `/runs/batch`. `empty_poll_p50` is there only if a poll came back with 204.
    """
    meter = Meter()
    backlog = Backlog(urls[0], max(300, 3 * runners * batch))
    life = _one_life if batch == 1 else _many_lives

    async def runner(number: int) -> None:
        connection = await connect(urls[number % len(urls)])
        runner_id = await register(connection, f"runner-{number}")
        while not meter.over:
            began = perf_counter()
            if count := await life(connection, runner_id, backlog, batch, meter):
                meter.note(began, count)

    async with asyncio.TaskGroup() as tasks:
        keeper = tasks.create_task(backlog.keep())
        await backlog.ample.wait()
        alive = [tasks.create_task(runner(number)) for number in range(runners)]
        await meter.window(seconds, warm_up=2)
        await asyncio.wait(alive)
        keeper.cancel()
    return meter.figures()


async def _one_life(connection: Connection, runner_id: str, backlog: Backlog, _batch: int, meter: Meter) -> int:
    began = perf_counter()
    status, body = await connection.call(request("GET", f"/runner/runs?runner_id={runner_id}&wait={POLL_SECONDS}"))
    meter.step("poll" if status == 200 else "empty_poll", began)
    if status == 204:
        return 0
    run = orjson.loads(body)["run"]
    backlog.took(1)
    report = {"runner_id": runner_id, "claim_token": run["claim_token"]}
    for outcome in ("started", "completed"):
        began = perf_counter()
        await connection.expect(200, request("POST", f"/runner/runs/{run['run_id']}/{outcome}", report))
        meter.step(outcome, began)
    return 1


async def _many_lives(connection: Connection, runner_id: str, backlog: Backlog, batch: int, meter: Meter) -> int:
    path = f"/runner/runs?runner_id={runner_id}&wait={POLL_SECONDS}&max={batch}"
    began = perf_counter()
    status, body = await connection.call(request("GET", path))
    meter.step("poll" if status == 200 else "empty_poll", began)
    if status == 204:
        return 0
    runs = orjson.loads(body)["runs"]
    backlog.took(len(runs))
    for outcome in ("started", "completed"):
        reports = [{"run_id": run["run_id"], "claim_token": run["claim_token"], "outcome": outcome} for run in runs]
        content = request("POST", "/runner/runs/report", {"runner_id": runner_id, "reports": reports})
        began = perf_counter()
        body = await connection.expect(200, content)
        meter.step(outcome, began)
        if body.count(b'"code":200') != len(runs):
            raise ValueError(body[:300])
    return len(runs)


async def submit_to_runner(urls: list[str], *, samples: int, uncounted: int = 10, fleet: int = 20) -> dict[str, float]:
    """Measure from just before a submission to the first replica to the end of the answer of a poll parked at the last
    one.

    `fleet` more polls of other tags are parked, half at each replica. One sample at a time, with a pause of 20-60 ms,
    in which the poll parks.
    """
    meter = Meter()
    submitter, runner = await connect(urls[0]), await connect(urls[-1])
    runner_id = await register(runner, "measured", ["measured"])
    idlers = [asyncio.create_task(idle_poll(urls[number % len(urls)], number)) for number in range(fleet)]
    submission = request("POST", "/runs", new_run(["measured"]))
    poll = request("GET", f"/runner/runs?runner_id={runner_id}&wait=30")
    await asyncio.sleep(1)
    for number in range(samples + uncounted):
        if number == uncounted:
            meter.begin()
        parked = asyncio.create_task(runner.expect(200, poll))
        await asyncio.sleep(0.02 + 0.04 * (number * 0.618 % 1))
        began = perf_counter()
        submitted = asyncio.create_task(submitter.expect(201, submission))
        body = await parked
        meter.note(began)
        await submitted
        run = orjson.loads(body)["run"]
        report = {"runner_id": runner_id, "claim_token": run["claim_token"]}
        for outcome in ("started", "completed"):
            await runner.expect(200, request("POST", f"/runner/runs/{run['run_id']}/{outcome}", report))
    meter.end()
    for idler in idlers:
        idler.cancel()
    return meter.figures()


async def idle_poll(url: str, number: int) -> None:
    connection = await connect(url)
    runner_id = await register(connection, f"idle-{number}", [f"idle-{number}"])
    while True:
        await connection.call(request("GET", f"/runner/runs?runner_id={runner_id}&wait=30"))
