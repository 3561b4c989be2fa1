import asyncio
import os

from celery import Celery

from benchmarks.peers.driver import Driver, Place, tell_started

CONCURRENCY = 4


class _Celery(Driver):
    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._app = Celery("peer", broker=f"{place.redis_url}/0", backend=f"{place.redis_url}/1")
        self._app.conf.update(
            task_acks_late=True,
            task_reject_on_worker_lost=True,
            task_track_started=True,
            worker_prefetch_multiplier=1,
        )

        @self._app.task(name="life")
        def life(prompt: str, port: int) -> str:
            tell_started(port)
            return prompt

        self._life = life

    def work(self) -> None:
        name = f"--hostname=worker-{os.getpid()}@%h"
        self._app.worker_main(["worker", name, f"--concurrency={CONCURRENCY}", "--loglevel=WARNING"])

    async def submit(self, port: int = 0) -> None:
        await asyncio.to_thread(self._life.apply_async, (self.place.prompt, port))

    async def completed(self) -> int:
        # Results have a database of their own; at most one entry a process is of a task that has only started.
        return int(await asyncio.to_thread(self._app.backend.client.dbsize))


driver = _Celery
