import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx

from chaos.ledger import Delivery, Report
from chaos.wire import PAUSE_SECONDS, Wire

TAG = "load"
BEAT_SECONDS = 1.5
POLL_SECONDS = 4
CHILDREN = "spawn "


@dataclass(frozen=True)
class Manner:
    """Behaviour of a runner: seconds of work a run at most, runs in one poll at most, capacity (0: unbounded)."""

    work: float
    capacity: int = 0
    at_once: int = 1
    holding: bool = False


@dataclass(eq=False)
class Work:
    run: dict[str, Any]
    stop: asyncio.Event = field(default_factory=asyncio.Event)


class Runner:
    def __init__(self, name: str, manner: Manner, wire: Wire, seed: int) -> None:
        self.name = name
        self._manner = manner
        self._wire = wire
        self._random = Random(f"{seed} {name}")
        self._runner_id = ""
        self._works: dict[str, Work] = {}
        self._awake = asyncio.Event()
        self._awake.set()
        self._life: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        return bool(self._works)

    async def serve(self) -> None:
        while True:
            self._life = asyncio.create_task(self._live())
            try:
                await self._life
            except asyncio.CancelledError:
                self._life.cancel()
                current = asyncio.current_task()
                if current is not None and current.cancelling():
                    raise
            self._works.clear()
            await asyncio.sleep(self._random.uniform(0, 5))

    def kill(self) -> None:
        if self._life is not None:
            self._life.cancel()

    def freeze(self) -> None:
        self._awake.clear()

    def thaw(self) -> None:
        self._awake.set()

    async def _live(self) -> None:
        await self._register(uuid.uuid4().hex)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat())
            while True:
                await self._awake.wait()
                asked = time.monotonic()
                answer = await self._poll()
                await self._awake.wait()
                if answer is None or answer.status_code != 200:
                    await asyncio.sleep(0 if answer is not None and answer.status_code == 204 else PAUSE_SECONDS)
                    continue
                self._take(answer.json(), asked, lambda run: tasks.create_task(self._work(run)))

    async def _register(self, instance: str) -> None:
        body: dict[str, Any] = {
            "hostname": self.name,
            "project_dir": "/chaos",
            "executor_profile": "chaos",
            "executor": {"type": "autonomous"},
            "tags": [TAG],
            "require_matching_tags": True,
            "instance_id": instance,
        }
        if self._manner.capacity:
            body["capacity"] = self._manner.capacity
        while True:
            answer, _ = await self._wire.decided("register", "POST", "/runner/register", json=body)
            if answer.status_code == 200:
                self._runner_id = str(answer.json()["runner_id"])
                return
            await asyncio.sleep(1)

    async def _poll(self) -> httpx.Response | None:
        query: dict[str, Any] = {"runner_id": self._runner_id, "wait": POLL_SECONDS}
        if self._manner.at_once > 1:
            query["max"] = self._manner.at_once
        return await self._wire.call("poll", "GET", "/runner/runs", params=query)

    def _take(self, answer: dict[str, Any], asked: float, begin: Callable[[dict[str, Any]], object]) -> None:
        for session_id in answer.get("stop_sessions", []):
            for work in self._works.values():
                if work.run["session_id"] == session_id:
                    work.stop.set()
        for run in answer.get("runs", [answer["run"]] if "run" in answer else []):
            given = Delivery(run["run_id"], run["claim_token"], self.name, asked, time.monotonic())
            self._wire.ledger.deliveries.append(given)
            begin(run)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await self._awake.wait()
            body: dict[str, Any] = {"runner_id": self._runner_id}
            if self._manner.holding:
                body["holding"] = [work.run["run_id"] for work in self._works.values()]
            await self._wire.call("heartbeat", "POST", "/runner/heartbeat", json=body)

    async def _work(self, run: dict[str, Any]) -> None:
        work = self._works[run["claim_token"]] = Work(run)
        try:
            if await self._report(run, "started") != 200:
                return
            if str(run["parameters"]["prompt"]).startswith(CHILDREN):
                await self._have_children(run)
            await self._take_time(work)
            if work.stop.is_set():
                await self._report(run, "stopped")
            elif self._random.random() < 0.1:
                await self._report(run, "failed", error="as it happens")
            else:
                await self._say(run, "result")
                await self._report(run, "completed")
        finally:
            self._works.pop(run["claim_token"], None)

    async def _take_time(self, work: Work) -> None:
        for _ in range(self._random.randint(0, 2)):
            await self._awake.wait()
            await self._say(work.run, "message")
        with suppress(TimeoutError):
            await asyncio.wait_for(work.stop.wait(), self._random.uniform(0, self._manner.work))
        await self._awake.wait()

    async def _say(self, run: dict[str, Any], event_type: str) -> None:
        key = uuid.uuid4().hex
        fields = {"claim_token": run["claim_token"], "event_type": event_type}
        if event_type == "result":
            fields["result_text"] = f"of {run['session_id']}"
        await self._wire.say(run["session_id"], key, **fields)

    async def _have_children(self, run: dict[str, Any]) -> None:
        for number in range(int(run["parameters"]["prompt"].removeprefix(CHILDREN))):
            body = {
                "type": "start_session",
                "parameters": {"prompt": "a child"},
                "parent_session_id": run["session_id"],
                "execution_mode": "async_callback",
                "additional_demands": {"tags": [TAG]},
            }
            await self._wire.submit(f"{run['run_id']}-{number}", body)

    async def _report(self, run: dict[str, Any], outcome: str, **fields: Any) -> int:
        await self._awake.wait()
        body = {"runner_id": self._runner_id, "claim_token": run["claim_token"], **fields}
        answer, begun = await self._wire.decided(outcome, "POST", f"/runner/runs/{run['run_id']}/{outcome}", json=body)
        said = Report(run["run_id"], run["claim_token"], outcome, answer.status_code, begun)
        self._wire.ledger.reports.append(said)
        return answer.status_code
