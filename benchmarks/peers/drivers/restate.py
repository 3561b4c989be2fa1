import asyncio

import hypercorn.asyncio
import hypercorn.config
import hypercorn.run
import restate
from restate import Context, Service

from benchmarks.peers.driver import Driver, Place, closed_loop, tell_started
from benchmarks.peers.drivers.http import Http
from benchmarks.wire import Unexpected

SLOTS = 64
WORKERS = 2
REGISTER_TRIES = 200

service = Service("Peer")


@service.handler()
async def life(_context: Context, job: dict[str, object]) -> object:
    tell_started(int(str(job["port"])))
    return job["prompt"]


app = restate.app([service])


class _Restate(Driver):
    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._ingress_port, self._admin_port, _, self._service_port = self.place.ports

    def work(self) -> None:
        config = hypercorn.config.Config()
        config.bind = [f"127.0.0.1:{self._service_port}"]
        config.workers = WORKERS
        config.loglevel = "WARNING"
        config.application_path = "benchmarks.peers.drivers.restate:app"
        hypercorn.run.run(config)

    async def open(self) -> None:
        self._ingress = Http(self._ingress_port)
        admin = Http(self._admin_port)
        for left in reversed(range(REGISTER_TRIES)):
            try:
                await admin.post("/deployments", {"uri": f"http://127.0.0.1:{self._service_port}"})
                break
            except (Unexpected, OSError):
                # The service may still be starting.
                if not left:
                    raise
                await asyncio.sleep(0.1)

    async def submit(self, port: int = 0) -> None:
        await self._ingress.post("/Peer/life/send", {"prompt": self.place.prompt, "port": port})

    async def lives(self, *, seconds: float) -> dict[str, float]:
        async def call() -> None:
            await self._ingress.post("/Peer/life", {"prompt": self.place.prompt, "port": 0})

        return await closed_loop(call, seconds=seconds, clients=SLOTS)


driver = _Restate
