import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from sqlalchemy.exc import SQLAlchemyError

from chaos.clients import DEPLOYED_TAG, Clients
from chaos.cluster import ChaosCluster
from chaos.ledger import Failure, Ledger
from chaos.mortals import die_with_a_run
from chaos.runners import Manner, Runner
from chaos.schedule import BALANCER, DEPLOYED, TOKENED, WEBS
from chaos.wire import Wire, http_client
from models.schema.sql import sql
from testkit.deployed_runner import DeployedRunner
from testkit.waiting import eventually

_UNFINISHED = sql("SELECT run_id, session_id FROM runs WHERE status IN $UNFINISHED")
# Schedules kill and freeze the first three.
MANNERS = {
    TOKENED[0]: Manner(work=0.2),
    TOKENED[1]: Manner(work=4, capacity=10, holding=True),
    TOKENED[2]: Manner(work=1, at_once=5),
    "steady-1": Manner(work=0.1),
    "steady-2": Manner(work=0.5, capacity=20, at_once=10, holding=True),
    "steady-3": Manner(work=3),
}


class Load:
    def __init__(self, cluster: ChaosCluster, directory: Path, seed: int, rate: float) -> None:
        self.ledger = Ledger()
        self.deployed: dict[str, DeployedRunner] = {}
        self.runners: dict[str, Runner] = {}
        self._cluster = cluster
        self._directory = directory
        self._seed = seed
        self._rate = rate
        self._frozen: set[str] = set()
        self._deaths = count(1)
        self._clients: Clients | None = None
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._submitting = 0
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def __enter__(self) -> Self:
        addresses = [self._cluster.balancer, self._cluster.urls[-1]]
        for name, url in zip(DEPLOYED, addresses, strict=True):
            where = self._directory / name
            self.deployed[name] = DeployedRunner(where, url, hostname=name, tags=DEPLOYED_TAG, heartbeat=4)
        self._thread.start()
        self._keeper.start()
        eventually(lambda: self._clients or self._fault, 30, what="a load")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._keeper.join(10)
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(60)
        for runner in self.deployed.values():
            runner.kill()

    # Calls of the faults:

    def kill(self, name: str) -> None:
        if name in self.deployed:
            self.deployed[name].kill()
        else:
            self._loop.call_soon_threadsafe(self.runners[name].kill)

    def freeze(self, name: str) -> None:
        if name in self.deployed:
            self._frozen.add(name)
            self.deployed[name].freeze()
        else:
            self._loop.call_soon_threadsafe(self.runners[name].freeze)

    def thaw(self, name: str) -> None:
        if name in self.deployed:
            self.deployed[name].thaw()
            self._frozen.discard(name)
        else:
            self._loop.call_soon_threadsafe(self.runners[name].thaw)

    def die(self) -> None:
        if self._clients is not None:
            dying = die_with_a_run(self._clients.wire, f"mortal-{next(self._deaths)}")
            asyncio.run_coroutine_threadsafe(dying, self._loop).result(120)

    # End of the load:

    def finish_submitting(self, within: float) -> None:
        if self._clients is not None:
            self._loop.call_soon_threadsafe(self._clients.over.set)
        self._until(lambda: not self._submitting, within, "decided calls of clients")

    def until_all_ended(self, within: float) -> None:
        """Wait until every run has ended but those in ``unheard``, and every runner has the answers to its reports."""
        self._until(lambda: not self._left(), within, "the end of all runs")
        self._until(lambda: not any(runner.busy for runner in self.runners.values()), within, "decided reports")

    def until_none_left(self, within: float) -> None:
        self._until(lambda: self.unfinished() == {}, within, "the end of the last runs")

    def stop_unheard(self) -> int:
        sessions = set((self.unfinished() or {}).values())
        for session_id in sessions:
            self._do(Clients.stop_one, session_id)
        return len(sessions)

    def resume(self, session_id: str) -> None:
        self._do(Clients.resume, session_id)

    def unheard(self) -> set[str]:
        return {
            entry["run_id"]
            for runner in self.deployed.values()
            for outcome in ("completed", "failed", "stopped")
            for entry in runner.ledger(outcome)
            if entry["code"] is None or entry["code"] >= 500
        }

    def unfinished(self) -> dict[str, str] | None:
        try:
            with self._cluster.engine.connect() as connection:
                return {row.run_id: row.session_id for row in connection.execute(_UNFINISHED)}
        except SQLAlchemyError:
            return None

    def _left(self) -> bool:
        unfinished = self.unfinished()
        return unfinished is None or bool(unfinished.keys() - (self.unheard() if unfinished else set()))

    def _do(self, what: Callable[[Clients, str], Coroutine[Any, Any, None]], session_id: str) -> None:
        if self._clients is not None:
            asyncio.run_coroutine_threadsafe(what(self._clients, session_id), self._loop).result(60)

    def failures(self) -> list[Failure]:
        shift = time.monotonic() - time.time()
        found = list(self.ledger.failures)
        for name, where in zip(DEPLOYED, (BALANCER, WEBS[-1]), strict=True):
            for entry in self.deployed[name].ledger():
                code, kind = entry.get("code"), _KINDS.get(entry["what"], "")
                if kind and (code is None or code >= 500 or (kind == "poll" and code >= 400)):
                    begun = float(entry.get("begun", entry["at"] - 35))
                    said = str(entry.get("body", entry.get("reason", "")))
                    found.append(Failure(kind, where, begun + shift, entry["at"] + shift, code, said))
        return found

    def _until(self, condition: Any, within: float, what: str) -> None:
        def done() -> bool:
            if self._fault is not None:
                raise self._fault
            return bool(condition())

        eventually(done, within, every=0.2, what=what)

    def _keep(self) -> None:
        while not self._ended.wait(1):
            for name, runner in self.deployed.items():
                if name not in self._frozen and not runner.alive:
                    runner.start()
            unfinished = self.unfinished()
            if self._clients is not None and unfinished is not None:
                self._clients.backlog = len(unfinished)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._all())
        except BaseException as fault:  # noqa: BLE001 -- raised again in the waiting thread
            self._fault = fault

    async def _all(self) -> None:
        addresses = {**dict(zip(WEBS, self._cluster.urls, strict=True)), BALANCER: self._cluster.balancer}
        async with http_client() as http:
            wire = Wire(http, self.ledger, addresses, Random(f"{self._seed} wire"))
            clients = Clients(wire, self._rate, Random(f"{self._seed} clients"))
            await clients.begin()
            self.runners = {name: Runner(name, manner, wire, self._seed) for name, manner in MANNERS.items()}
            roles = [clients.submit(0.25) for _ in range(4)]
            roles += [clients.write(2 / self._rate), clients.stop(1.5), clients.delete(1.0), clients.look(0.5)]
            async with asyncio.TaskGroup() as tasks:
                members = [tasks.create_task(runner.serve()) for runner in self.runners.values()]
                members += [tasks.create_task(self._count(role)) for role in roles]
                self._clients = clients
                await self._over.wait()
                for task in members:
                    task.cancel()

    async def _count(self, role: Coroutine[Any, Any, None]) -> None:
        self._submitting += 1
        try:
            await role
        finally:
            self._submitting -= 1


# Kinds of calls by the names in a deployed runner's ledger.
_KINDS = {
    "poll_failed": "poll",
    "started": "started",
    "completed": "completed",
    "failed": "failed",
    "stopped": "stopped",
    "event": "event",
    "bind": "bind",
    "heartbeat": "heartbeat",
}
