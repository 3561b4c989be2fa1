"""Replace every web and worker process under load: clients that never repeat a request notice nothing (promise 4)."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest
from sqlalchemy import Engine

from runtime.settings import Settings
from testkit.cluster import Cluster
from testkit.deployed_runner import DeployedRunner
from testkit.feed_follower import Message, Parser, all_numbered, head, ledger, seen_events
from testkit.ports import own_ports
from testkit.servers import new_directory
from testkit.up_process import Up
from testkit.waiting import eventually
from tests.support.coordination import Coordination
from tests.support.run_history import (
    assert_nothing_lost_or_doubled,
    assert_one_history,
    claims,
    finish,
    reports_refused,
)
from tests.support.traffic import Traffic

SILENCE_SECONDS = 40.0
END_SECONDS = 30.0


class Stream:
    """Client that keeps its cursor, and reconnects, at the next address, only after a clean end with `retry:`."""

    def __init__(self, urls: Sequence[str], query: Mapping[str, Any]) -> None:
        self.events: list[Message] = []
        self.cursor = ""
        self.connections = 0
        self.faults: list[str] = []
        self._urls = urls
        self._query = dict(query)

    @property
    def position(self) -> int:
        """Return its position; -1 before its snapshot."""
        return int(self.cursor.rpartition(".")[2]) if self.cursor and "~" not in self.cursor else -1

    async def follow(self, http: httpx.AsyncClient) -> None:
        """Follow until cancelled."""
        while True:
            pause = 1000
            try:
                pause = await self._listen(http)
            except (httpx.HTTPError, AssertionError) as error:
                self.faults.append(repr(error))
            await asyncio.sleep(pause / 1000 * random.uniform(0.5, 1))

    async def _listen(self, http: httpx.AsyncClient) -> int:
        url = f"{self._urls[self.connections % len(self._urls)]}/sse/sessions"
        self.connections += 1
        headers = {"Last-Event-ID": self.cursor} if self.cursor else {}
        parser, last = Parser(), Message(None, "", "")
        async with http.stream("GET", url, params=self._query, headers=headers) as response:
            assert response.status_code == 200, response.status_code
            async for data in response.aiter_bytes():
                for last in parser.feed(data):
                    self._take(last)
        assert last.retry is not None, "a stream ended without a word"
        return last.retry

    def _take(self, message: Message) -> None:
        assert message.event != "reset", message
        if message.event not in {"", "init"}:
            self.events.append(message)
        if message.id is not None:
            self.cursor = message.id


class Streams:
    """``queries``: one stream each, spread over the addresses."""

    def __init__(self, urls: Sequence[str], queries: Sequence[Mapping[str, Any]]) -> None:
        turned = [[*urls[place % len(urls) :], *urls[: place % len(urls)]] for place in range(len(queries))]
        self.all = [Stream(order, query) for order, query in zip(turned, queries, strict=True)]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = asyncio.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="streams", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.until_at(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(END_SECONDS)
        if error is None and self._failure is not None:
            raise self._failure

    @property
    def faults(self) -> list[str]:
        """Return the faults of all streams."""
        return [fault for stream in self.all for fault in stream.faults]

    def until_at(self, position: int, within: float = END_SECONDS) -> None:
        """Wait until all have reached this position."""

        def there() -> bool:
            return self._failure is not None or all(stream.position >= position for stream in self.all)

        eventually(there, within, every=0.05, what=f"all streams at {position}")

    def _run(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as failure:  # noqa: BLE001 raised again in the test's own thread
            self._failure = failure

    async def _all(self) -> None:
        self._loop = asyncio.get_running_loop()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        async with httpx.AsyncClient(timeout=SILENCE_SECONDS, limits=limits, trust_env=False) as http:
            tasks = [asyncio.create_task(stream.follow(http)) for stream in self.all]
            await self._over.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


REPLICAS = ("web-1", "web-2", "worker-1", "worker-2")
WATCHING, SILENT, PARKED = 3, 22, 25
# Reports that a deployed runner sends for each run, once.
TOLD = ("bind", "started", "event", "completed")
ENVIRONMENT = {"COORDINATOR_DRAIN_SECONDS": "4", "COORDINATOR_SSE_HEARTBEAT_SECONDS": "2"}


@pytest.fixture
def up(request: pytest.FixtureRequest, scratch: Path, settings: Settings) -> Iterator[Up]:
    """Start two web and two worker processes behind a balancer, on this test's servers."""
    port = own_ports(3)
    servers = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    arguments = ("--web", "2", "--workers", "2", "--no-runner", "--lb", "--lb-port", str(port + 2))
    environment = ENVIRONMENT | {"COORDINATOR_FAST_PATHS": getattr(request, "param", "1")}
    up = Up(new_directory(scratch, "up"), port, *arguments, **servers, **environment)
    yield up
    up.end()


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("way", "up"),
    [("through the balancer", "1"), ("at each address", "0")],
    ids=["balancer", "addresses, by actors"],
    indirect=["up"],
)
def test_rolling_deploy_fails_no_request_and_loses_or_doubles_nothing(up: Up, engine: Engine, way: str) -> None:
    """Submit, read, poll and report all the time; every stream shows what the database has."""
    urls = [up.balancer] if way == "through the balancer" else up.urls
    former = {name: up.running(name).pid for name in REPLICAS}
    queries: list[dict[str, str]] = [{}] * WATCHING + [{"session_id": "nobody"}] * SILENT
    with (
        Streams(urls, queries) as streams,
        Traffic(urls, keyed=False, readers=2, idle=PARKED, poll_seconds=20, pace=0.25) as traffic,
    ):
        traffic.until_completed(20)
        deployed = up.rolling_deploy()
        traffic.until_completed(20)
        finish(traffic, engine)
        eventually(lambda: all_numbered(engine), what="positions")
        streams.until_at(head(engine))

    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert all(up.running(name).pid != pid for name, pid in former.items())
    assert traffic.ledger.failed() == {}
    assert streams.faults == []
    assert reports_refused(traffic.ledger) == []
    assert_nothing_lost_or_doubled(engine, traffic.ledger)
    history = ledger(engine)
    for stream in streams.all[:WATCHING]:
        assert seen_events(stream.events) == history
    assert not any(stream.events for stream in streams.all[WATCHING:])
    # Every stream has left its first process, which is gone.
    assert all(stream.connections > 1 for stream in streams.all)


@pytest.mark.timeout(180)
def test_deployed_runners_notice_nothing_of_a_rolling_deploy(
    up: Up, cluster: Cluster, engine: Engine, tmp_path: Path
) -> None:
    """Three failed polls within seconds, or one failed report, would cost work: see neither.

    One runner polls through the balancer, one at an address; runs begin and end before, during and after the deploy.
    """
    coordination = Coordination(cluster, up.balancer)
    with ExitStack() as held:
        runners = [
            DeployedRunner(tmp_path / name, url, hostname=name)
            for name, url in (("balanced", up.balancer), ("direct", up.urls[1]))
        ]
        for runner in runners:
            held.callback(runner.kill)
        eventually(lambda: all(runner.runner_id for runner in runners), what="registered runners")
        runs = [coordination.submit(f"sleep {length}")[0] for length in (0.5, 2, 4, 8, 12, 20)]
        eventually(lambda: {*runs} == spawned(runners).keys(), what="all begun")
        deployed = up.rolling_deploy()
        runs += [coordination.submit("sleep 1")[0] for _ in range(4)]
        ended = [coordination.until(run_id, within=60)["status"] for run_id in runs]

        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        assert ended == ["completed"] * len(runs)
        assert all(runner.alive for runner in runners)
        assert spawned(runners) == dict.fromkeys(runs, 1)
        assert not any(runner.ledger("poll_failed") for runner in runners)
        # Wait for the ledger: a run ends before its runner has read the answer.
        eventually(lambda: len(answers(runners)) == len(TOLD) * len(runs), what="an answer to each report")
        assert {*answers(runners)} <= {200, 201}
    assert {claims(history) for history in assert_one_history(engine).values()} == {1}


def answers(runners: list[DeployedRunner]) -> list[int]:
    """Return the status of every answer that any of the runners got to a report."""
    return [entry["code"] for runner in runners for what in TOLD for entry in runner.ledger(what)]


def spawned(runners: list[DeployedRunner]) -> dict[str, int]:
    """Count the processes that the runners started for each run."""
    return Counter(entry["run_id"] for runner in runners for entry in runner.ledger("spawned"))
