import asyncio
import os
import signal

import psycopg
from dbos import DBOS, DBOSClient, DBOSConfig

from benchmarks.peers.driver import Driver, tell_started

CONCURRENCY = 32
POLL_SECONDS = 0.05
_COMPLETED = "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'"


@DBOS.workflow(name="life")
def life(prompt: str, port: int) -> str:
    tell_started(port)
    return prompt


class _Dbos(Driver):
    async def prepare(self) -> None:
        await asyncio.to_thread(self._launch)

    def work(self) -> None:
        self._launch()
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        os._exit(0)

    async def open(self) -> None:
        self._client = DBOSClient(system_database_url=self.place.database_url, system_database_pool_size=16)
        self._counter = await psycopg.AsyncConnection.connect(self.place.database_url, autocommit=True)

    async def submit(self, port: int = 0) -> None:
        await self._client.enqueue_async({"workflow_name": "life", "queue_name": "lives"}, self.place.prompt, port)

    async def completed(self) -> int:
        row = await (await self._counter.execute(_COMPLETED)).fetchone()
        return int(row[0]) if row else 0

    def _launch(self) -> None:
        config: DBOSConfig = {
            "name": "peer",
            "system_database_url": self.place.database_url,
            "executor_id": f"executor-{os.getpid()}",
            "application_version": "1",
            "run_admin_server": False,
            "log_level": "WARNING",
        }
        DBOS(config=config)
        DBOS.launch()
        DBOS.register_queue("lives", worker_concurrency=CONCURRENCY, polling_interval_sec=POLL_SECONDS)


driver = _Dbos
