"""Clients that wait and follow while the coordinator restarts, and the synchronous one in threads, forks and loops."""

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from coordinator_client.client import CoordinatorClient
from coordinator_client.errors import Refused
from coordinator_client.following import HistoryLost
from coordinator_client.outcomes import RunFailed, RunStopped, WaitTimeout
from coordinator_client.requests import RunRequest
from coordinator_client.sync_client import SyncCoordinatorClient
from devserver.supervisor import ROOT
from testkit.cluster import Cluster, Process
from testkit.waiting import eventually
from tests.support.coordination import Coordination
from tests.support.task_runners import start_program
from tests.support.web import WebInThread

# Print a line for each line of a file that the test makes, and end when it says so.
PACED = """
import json, pathlib, sys, time
path = pathlib.Path(json.load(sys.stdin)["parameters"]["prompt"])
told = 0
while True:
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines[told:]:
        print(line, flush=True)
    told = len(lines)
    if lines[-1:] == ["end"]:
        break
    time.sleep(0.02)
print(json.dumps({"lines": told}))
"""


def request(prompt: str = "x", **fields: Any) -> RunRequest:
    return RunRequest(parameters={"prompt": prompt}, **fields)


def texts(events: Iterable[Mapping[str, Any]]) -> list[str]:
    return [event["content"][0]["text"] for event in events if event["event_type"] == "message"]


def contents(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the events as clients sent them: the last ones of a stream may have come before their position."""
    left_out = {"id", "feed_cursor"}
    return [{name: value for name, value in event.items() if name not in left_out} for event in events]


def loops() -> int:
    """Return the number of threads of clients."""
    return sum(thread.name == "coordinator-client" for thread in threading.enumerate())


@pytest.fixture
def sync_client(web: WebInThread) -> Iterator[SyncCoordinatorClient]:
    with SyncCoordinatorClient(web.client.url) as client:
        yield client


def test_wait_and_follow_outlive_a_restart(cluster: Cluster, tmp_path: Path) -> None:
    """End the only web process under a waiting client and a following one, and start one at another address."""
    file = tmp_path / "lines"
    first, second = cluster.start_web(), cluster.start_web()
    cluster.start_worker()
    urls = first.url, second.url
    Coordination(cluster, first.url).start_python_runner(PACED, "--name", "paced", urls=urls)
    with SyncCoordinatorClient(urls, patience_seconds=0) as client, ThreadPoolExecutor(2) as threads:
        run_id = client.submit(request(str(file)))["run_id"]
        file.write_text("one\n")
        events: list[dict[str, Any]] = []
        followed = threads.submit(lambda: events.extend(client.follow(run_id)))
        waited = threads.submit(client.wait, run_id)
        eventually(lambda: texts(events) == ["one"], what="the first line")
        first.kill()
        second.kill()
        again = cluster.start("web", _arguments(first), {}, url=first.url)
        cluster.wait_until_ready(again)
        file.write_text("one\ntwo\nend\n")
        done = waited.result(60)
        assert done.data == {"lines": 3}
        followed.result(60)
        assert texts(events) == ["one", "two", "end"]
        assert contents(events) == contents(client.session_events(done.run["session_id"], run_id=run_id))
        assert contents(client.follow(run_id)) == contents(events)
        (second_line,) = (place for place, event in enumerate(events) if texts([event]) == ["two"])
        rest = client.follow(run_id, after=events[second_line]["feed_cursor"])
        assert contents(rest) == contents(events[second_line + 1 :])
        assert contents(client.follow(session_id=done.run["session_id"])) == contents(events)


def _arguments(web: Process) -> list[str]:
    return ["web", "--host", "127.0.0.1", "--port", web.url.rpartition(":")[2]]


async def test_asynchronous_client_waits_and_follows(web: WebInThread) -> None:
    """Raise what ended a run, and end the stream with a run that no runner had."""
    async with CoordinatorClient(web.client.url) as client:
        failing = await client.submit(request(no_match_timeout_seconds=1, additional_demands={"tags": ["none"]}))
        with pytest.raises(WaitTimeout, match=r"has not ended within 0.1 s"):
            await client.wait(failing["run_id"], seconds=0.1)
        stopped = await client.submit(request())
        waiting = asyncio.create_task(client.wait(stopped["run_id"]))
        following = asyncio.create_task(_all(client, stopped["run_id"]))
        await client.stop_run(stopped["run_id"])
        with pytest.raises(RunStopped):
            await waiting
        assert await following == []
        for call in (client.wait("run_unknown"), _all(client, "run_unknown")):
            with pytest.raises(Refused, match="404"):
                await call
        with pytest.raises(TypeError, match="a run or a session"):
            await _all(client, None)
        with pytest.raises(HistoryLost, match="not one that was given out here"):
            await anext(client.follow(stopped["run_id"], after="v1.x.1"))


async def _all(client: CoordinatorClient, run_id: str | None) -> list[dict[str, Any]]:
    return [event async for event in client.follow(run_id)]


def test_failed_run_raises_its_error(web: WebInThread, sync_client: SyncCoordinatorClient) -> None:
    runner_id = web.client.register()
    run_id = sync_client.submit(request())["run_id"]
    answer = sync_client.poll(runner_id, max_runs=1, seconds=20)
    token = answer["runs"][0]["claim_token"]
    sync_client.report(
        runner_id,
        [{"run_id": run_id, "outcome": "failed", "claim_token": token, "error": "no space left"}],
    )
    with pytest.raises(RunFailed, match="no space left") as raised:
        sync_client.wait(run_id)
    assert raised.value.error == "no space left"
    assert raised.value.run["status"] == "failed"


def test_synchronous_client_serves_many_threads(sync_client: SyncCoordinatorClient) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: sync_client.submit(request()), range(64)))
    assert len({answer["run_id"] for answer in answers}) == 64
    assert sync_client.answers == 64


async def test_synchronous_client_works_within_a_running_loop(sync_client: SyncCoordinatorClient) -> None:
    """Block the loop, as in a notebook's cell."""
    assert sync_client.sessions(limit=1)["sessions"] == []


def test_closed_client_ends_calls_and_threads(web: WebInThread) -> None:
    client = SyncCoordinatorClient(web.client.url)
    run_id = client.submit(request())["run_id"]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.run, run_id, wait=60)
        feed = client.feed(init=True)
        assert next(feed).event == "init"
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            waiting.result(30)
        with pytest.raises(RuntimeError, match="the client is closed"):
            next(feed)
    client.close()
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.run(run_id)
    assert loops() == 0


def test_dropped_client_ends_its_thread(web: WebInThread) -> None:
    """Free a client that is not closed."""
    client = SyncCoordinatorClient(web.client.url)
    client.sessions(limit=1)
    assert loops() == 1
    del client
    gc.collect()
    assert loops() == 0


def test_stream_that_is_left_is_closed(web: WebInThread, sync_client: SyncCoordinatorClient) -> None:
    with closing(sync_client.feed(init=True)) as items:
        assert next(items).event == "init"
    assert list(items) == []
    assert sync_client.sessions(limit=1)["sessions"] == []


def test_callback_that_calls_its_own_client_is_refused(sync_client: SyncCoordinatorClient) -> None:
    """Raise instead of waiting for itself for ever."""
    told: list[str] = []

    def call(_: str, __: str | None) -> None:
        try:
            sync_client.health()
        except RuntimeError as error:
            told.append(str(error))

    with closing(sync_client.feed(init=True, on_connection=call)) as items:
        next(items)
    assert "own event loop" in told[0]


def test_wait_keeps_to_its_time_without_a_coordinator() -> None:
    """Give up before the patience of the client is at its end."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with (
            SyncCoordinatorClient(url, patience_seconds=3600) as client,
            pytest.raises(WaitTimeout, match="within 0 s"),
        ):
            client.wait("run_1", seconds=0)


WITHOUT_DESCRIPTORS = """
import os, resource
from coordinator_client import SyncCoordinatorClient
client = SyncCoordinatorClient("http://127.0.0.1:9", patience_seconds=0)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
taken = []
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    pass
for _ in range(2):
    try:
        client.health()
    except OSError as error:
        print(error.strerror)
for descriptor in taken:
    os.close(descriptor)
try:
    client.health()
except Exception as error:
    print(type(error).__name__)
"""


def test_client_without_descriptors_raises_and_recovers(tmp_path: Path) -> None:
    """Make no event loop while all descriptors of the process are in use; a later call makes one."""
    command = [sys.executable, "-c", WITHOUT_DESCRIPTORS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["Too many open files", "Too many open files", "Unreachable"]


INTERRUPTED = """
import sys
from coordinator_client import RunRequest, SyncCoordinatorClient
client = SyncCoordinatorClient(sys.argv[1])
run_id = client.submit(RunRequest(parameters={"prompt": "x"}))["run_id"]
for call in (lambda: client.wait(run_id), lambda: list(client.follow(run_id))):
    try:
        print("calling", flush=True)
        call()
    except KeyboardInterrupt:
        print("interrupted", client.run(run_id)["status"], flush=True)
"""


def until_said(program: Process, text: str, times: int) -> None:
    eventually(lambda: program.log().count(text) == times, what=f"{text} {times} times")


def test_interrupt_ends_the_call_alone(cluster: Cluster) -> None:
    """Press Ctrl-C in a wait and in a stream; the next call works, and the program ends by itself."""
    url = cluster.start_web().url
    program = start_program(cluster, "-c", INTERRUPTED, url, waits_for="calling")
    for times in (1, 2):
        until_said(program, "calling", times)
        program.signal(signal.SIGINT)
        until_said(program, "interrupted pending", times)
    assert program.wait() == 0
    assert "Traceback" not in program.log()


FORKED = """
import json, os, sys
from coordinator_client import RunRequest, SyncCoordinatorClient
client = SyncCoordinatorClient(sys.argv[1])
def submit():
    return client.submit(RunRequest(parameters={"prompt": "x"}))["run_id"]
first = submit()
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, json.dumps([submit() for _ in range(3)]).encode())
    sys.exit(0)
os.close(writing)
mine = [submit() for _ in range(3)]
_, status = os.wait()
theirs = json.loads(os.read(reading, 65536))
print(json.dumps([status, len({first, *mine, *theirs}), submit() != first]))
"""


def test_forked_process_has_connections_of_its_own(cluster: Cluster) -> None:
    """Use one client on both sides of a fork at the same time."""
    url = cluster.start_web().url
    program = start_program(cluster, "-W", "ignore::DeprecationWarning", "-c", FORKED, url, waits_for="true]")
    assert json.loads(program.log()) == [0, 7, True]
    assert program.wait() == 0
