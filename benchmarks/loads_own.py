import asyncio
import resource
from time import perf_counter
from typing import Final, cast

import uvicorn
from fastapi import FastAPI

from benchmarks.loads_runs import new_run
from benchmarks.meter import Meter
from benchmarks.wire import connect, request

ANSWER: Final = b"HTTP/1.1 201 Created\r\ncontent-length: 96\r\ncontent-type: application/json\r\n\r\n" + b"x" * 96


class Trivial(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        del data
        self._transport.write(ANSWER)


async def serve_trivially(urls: list[str], *, port: int) -> dict[str, float]:
    del urls
    server = await asyncio.get_running_loop().create_server(Trivial, "127.0.0.1", port)
    async with server:
        await server.serve_forever()
    return {}


async def serve_barely(urls: list[str], *, port: int) -> dict[str, float]:
    del urls
    app = FastAPI()

    @app.post("/runs", status_code=201)
    async def answer() -> dict[str, str]:
        return {"status": "pending"}

    await uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", access_log=False)).serve()
    return {}


async def own_cost(urls: list[str], *, seconds: float, clients: int) -> dict[str, float]:
    meter = Meter()
    content = request("POST", "/runs", new_run())
    spent = 0.0

    async def client() -> None:
        connection = await connect(urls[0])
        while not meter.over:
            began = perf_counter()
            await connection.expect(201, content)
            meter.note(began)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client())
        await asyncio.sleep(0.5)
        before = _cpu_seconds()
        await meter.window(seconds, warm_up=0)
        spent = _cpu_seconds() - before
    figures = meter.figures()
    return {**figures, "microseconds": 1e6 * spent / figures["count"]}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
