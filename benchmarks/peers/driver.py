"""Loads of a peer, in its own environment: reads one load as JSON from stdin, prints its measurements as JSON.

Arguments: the driver's name, its place as JSON, and `load`, `prepare` (make the schema) or `work` (until ended).
Imports nothing but the standard library, uvloop and the driver.
"""

import asyncio
import importlib
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import uvloop

from benchmarks.meter import Meter, percentile

CLIENTS: Final = 32
# Runs that are kept pending while lives are counted, submitted this many at a time.
PENDING: Final = 500
WARM_UP: Final = 3.0
JOB_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    database_url: str
    redis_url: str
    ports: list[int]
    prompt: str


class Driver:
    def __init__(self, place: Place) -> None:
        self.place = place

    async def prepare(self) -> None: ...

    def work(self) -> None:
        raise NotImplementedError

    async def open(self) -> None: ...

    async def submit(self, port: int = 0) -> None:
        raise NotImplementedError

    async def submit_many(self, count: int) -> None:
        pending = count
        while pending > 0:
            await asyncio.gather(*(self.submit() for _ in range(min(CLIENTS, pending))))
            pending -= CLIENTS

    async def completed(self) -> int:
        raise NotImplementedError

    async def submissions(self, *, seconds: float) -> dict[str, float]:
        return await closed_loop(self.submit, seconds=seconds, clients=CLIENTS)

    async def lives(self, *, seconds: float) -> dict[str, float]:
        keeper = asyncio.create_task(self._keep_pending())
        meter = Meter()
        await asyncio.sleep(WARM_UP)
        before, began = await self.completed(), perf_counter()
        meter.begin()
        await asyncio.wait([keeper], timeout=seconds)
        done, took = await self.completed() - before, perf_counter() - began
        meter.end()
        if keeper.done():
            keeper.result()
        keeper.cancel()
        if not done:
            raise ValueError("no job was completed within the window")
        return {"rate": done / took, "count": done}

    async def starts(self, *, samples: int, uncounted: int = 10) -> dict[str, float]:
        started: asyncio.Queue[float] = asyncio.Queue()
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Starts(started), local_addr=("127.0.0.1", 0)
        )
        port: int = transport.get_extra_info("sockname")[1]

        async def start() -> float:
            began = perf_counter()
            await self.submit(port)
            return await asyncio.wait_for(started.get(), JOB_SECONDS) - began

        figures = await measured_alone(start, samples, uncounted)
        transport.close()
        return figures

    async def _keep_pending(self) -> None:
        submitted = 0
        while True:
            if submitted - await self.completed() < PENDING:
                await self.submit_many(PENDING)
                submitted += PENDING
            else:
                await asyncio.sleep(0.1)


class _Starts(asyncio.DatagramProtocol):
    def __init__(self, started: "asyncio.Queue[float]") -> None:
        self._started = started

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002  the protocol's
        self._started.put_nowait(float(data))


def tell_started(port: int) -> None:
    if port:
        # One clock for all processes: perf_counter is CLOCK_MONOTONIC on Linux.
        now = repr(perf_counter()).encode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(now, ("127.0.0.1", port))


async def closed_loop(verb: Callable[[], Awaitable[None]], *, seconds: float, clients: int) -> dict[str, float]:
    meter = Meter()

    async def client() -> None:
        while not meter.over:
            began = perf_counter()
            await verb()
            meter.note(began)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client())
        await meter.window(seconds)
    return meter.figures()


async def measured_alone(verb: Callable[[], Awaitable[float]], samples: int, uncounted: int) -> dict[str, float]:
    meter, took = Meter(), []
    for number in range(samples + uncounted):
        if number == uncounted:
            meter.begin()
        await asyncio.sleep(0.02 + 0.04 * (number * 0.618 % 1))
        seconds = await verb()
        if number >= uncounted:
            took.append(seconds)
    meter.end()
    ordered = sorted(took)
    return {name: 1000 * percentile(ordered, percent) for name, percent in (("p50", 50), ("p99", 99))}


async def _load(driver: Driver, job: dict[str, Any]) -> dict[str, float]:
    # Clients without an asynchronous interface submit from a thread each.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(CLIENTS))
    await driver.open()
    figures: dict[str, float] = await getattr(driver, job.pop("load"))(**job)
    return figures


def main(name: str, place: str, verb: str) -> None:
    driver: Driver = importlib.import_module(f"benchmarks.peers.drivers.{name}").driver(Place(**json.loads(place)))
    if verb == "work":
        driver.work()
    elif verb == "prepare":
        uvloop.run(driver.prepare())
    else:
        print(json.dumps(uvloop.run(_load(driver, json.load(sys.stdin)))), flush=True)
        # Threads of the peer's client may still wait for something.
        os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
