import asyncio
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from benchmarks.meter import Meter
from benchmarks.peers.driver import WARM_UP, Driver, Place, measured_alone
from benchmarks.peers.drivers.http import Http

# One server answers some dozen requests a second; more slots would only make each life longer.
SLOTS = 16
# Its lives take seconds: windows are so many times as long as the others'.
LONGER = 3
# Greatest number of runs that one request may create.
MOST_CREATED = 100
POOL = "peer"


class _Prefect(Driver):
    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._http = Http(self.place.ports[0])
        self._in_hand: set[str] = set()

    async def open(self) -> None:
        post = self._http.post
        flow = await post("/api/flows/", {"name": "life"})
        pools = await post("/api/work_pools/filter", {})
        if POOL not in {pool["name"] for pool in pools}:
            await post("/api/work_pools/", {"name": POOL, "type": "process"})
        deployment = {"name": "life", "flow_id": flow["id"], "work_pool_name": POOL, "enforce_parameter_schema": False}
        made = await post("/api/deployments/", deployment)
        self._create_path = f"/api/deployments/{made['id']}/create_flow_run"

    async def submit(self, port: int = 0) -> None:
        await self._http.post(self._create_path, {"parameters": {"prompt": self.place.prompt, "port": port}})

    async def lives(self, *, seconds: float) -> dict[str, float]:
        meter = Meter()
        fetched: asyncio.Queue[str] = asyncio.Queue()
        keeper = asyncio.create_task(self._keep_created(fetched, meter))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(SLOTS):
                tasks.create_task(self._slot(fetched, meter))
            await meter.window(LONGER * seconds, warm_up=LONGER * WARM_UP)
            keeper.cancel()
            for _ in range(SLOTS):
                fetched.put_nowait("")
        return meter.figures()

    async def starts(self, *, samples: int, uncounted: int = 3) -> dict[str, float]:
        return await measured_alone(self._start, samples // LONGER, uncounted)

    async def _start(self) -> float:
        began = perf_counter()
        created = asyncio.create_task(self.submit())
        while not (runs := await self._fetch(1)):
            pass
        await self._set_state(runs[0], "PENDING")
        took = perf_counter() - began
        await created
        for state in ("RUNNING", "COMPLETED"):
            await self._set_state(runs[0], state)
        return took

    async def _keep_created(self, fetched: "asyncio.Queue[str]", meter: Meter) -> None:
        pending = 0
        while not meter.over:
            if pending < MOST_CREATED:
                await self._create_many()
                pending += MOST_CREATED
            free = SLOTS - len(self._in_hand)
            runs = await self._fetch(free) if free else []
            for run in runs:
                fetched.put_nowait(run)
            pending -= len(runs)
            if not runs:
                await asyncio.sleep(0.01)

    async def _create_many(self) -> None:
        runs = [{"parameters": {"prompt": self.place.prompt, "port": 0}}] * MOST_CREATED
        await self._http.post(f"{self._create_path}/bulk", runs)

    async def _fetch(self, most: int) -> list[str]:
        wanted = {"limit": most + len(self._in_hand), "scheduled_before": datetime.now(UTC).isoformat()}
        answer = await self._http.post(f"/api/work_pools/{POOL}/get_scheduled_flow_runs", wanted)
        runs: list[str] = [found["flow_run"]["id"] for found in answer]
        fresh = [run for run in runs if run not in self._in_hand][:most]
        self._in_hand.update(fresh)
        return fresh

    async def _slot(self, fetched: "asyncio.Queue[str]", meter: Meter) -> None:
        while not meter.over:
            run = await fetched.get()
            if not run:
                return
            began = perf_counter()
            for state in ("PENDING", "RUNNING", "COMPLETED"):
                await self._set_state(run, state)
            self._in_hand.discard(run)
            meter.note(began)

    async def _set_state(self, run: str, state: str) -> None:
        answer: Any = await self._http.post(f"/api/flow_runs/{run}/set_state", {"state": {"type": state}})
        if answer["status"] != "ACCEPT":
            raise ValueError(f"{answer['status']} to {state}: {answer}")


driver = _Prefect
