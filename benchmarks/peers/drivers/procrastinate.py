import asyncio

from procrastinate import App, PsycopgConnector

from benchmarks.peers.driver import Driver, Place, tell_started

CONCURRENCY = 20
_COMPLETED = "SELECT count(*) AS count FROM procrastinate_jobs WHERE status = 'succeeded'"


class _Procrastinate(Driver):
    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._app = App(connector=PsycopgConnector(conninfo=self.place.database_url, min_size=4, max_size=16))

        @self._app.task(name="life")
        async def life(prompt: str, port: int) -> str:
            tell_started(port)
            return prompt

        self._life = life

    async def prepare(self) -> None:
        async with self._app.open_async():
            await self._app.schema_manager.apply_schema_async()

    def work(self) -> None:
        async def work() -> None:
            async with self._app.open_async():
                await self._app.run_worker_async(concurrency=CONCURRENCY)

        asyncio.run(work())

    async def open(self) -> None:
        await self._app.open_async()

    async def submit(self, port: int = 0) -> None:
        await self._life.defer_async(prompt=self.place.prompt, port=port)

    async def submit_many(self, count: int) -> None:
        await self._life.batch_defer_async(*[{"prompt": self.place.prompt, "port": 0}] * count)

    async def completed(self) -> int:
        row = await self._app.connector.execute_query_one_async(_COMPLETED)
        return int(row["count"])


driver = _Procrastinate
