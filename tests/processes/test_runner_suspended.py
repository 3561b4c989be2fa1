"""A runner whose machine sleeps: its timers do not see the time in which its runs go to others."""

import asyncio
import re
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

import pytest

from coordinator_client.client import CoordinatorClient
from coordinator_client.runner_loop import clock
from coordinator_client.runner_loop.executions import Reason
from coordinator_client.runner_loop.heartbeats import Heartbeats
from coordinator_client.runner_loop.registration import RunnerRegistration
from coordinator_client.runner_loop.reporting import Reporting
from runner.executor import Command, Execution
from runner.runner import RunnerOptions
from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.coordination import Coordination, is_alive

QUICK: dict[str, Any] = {
    "told_heartbeat_instance_seconds": 1,
    "stale_after_seconds": 2,
    "lost_after_seconds": 3,
}
SLEEPER = "import os, time; print('pid', os.getpid()); time.sleep(600)"
# As in suspend: time.monotonic(), and asyncio's timers with it, leaves out the time in which everything was stopped.
SUSPENDED_CLOCK = """
import threading, time
real, seen, slept = time.monotonic, time.monotonic(), 0.0
def monotonic():
    global seen, slept
    now = real()
    if now - seen > 1.5:
        slept += now - seen
    seen = now
    return now - slept
def look():
    while True:
        time.sleep(0.05)
        monotonic()
time.monotonic = monotonic
threading.Thread(target=look, daemon=True).start()
"""

ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{"ok":true}'


@pytest.fixture
def coordination(cluster: Cluster) -> Coordination:
    coordination = Coordination(cluster, cluster.start_web(**QUICK).url)
    cluster.start_worker(**QUICK)
    return coordination


def pids(coordination: Coordination, session_id: str, number: int) -> list[int]:
    """Return the processes of a session's attempts, once so many have printed their ids."""

    def said() -> list[int]:
        lines = [line for line in coordination.lines(session_id) if line.startswith("pid ")]
        return [int(line.split()[1]) for line in lines] if len(lines) >= number else []

    return eventually(said, 30, what=f"{number} processes")


def test_runner_kills_runs_reassigned_while_machine_slept(
    coordination: Coordination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skip its timers: the first heartbeat after the sleep names the lost runs."""
    (tmp_path / "sitecustomize.py").write_text(SUSPENDED_CLOCK)
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(tmp_path))
        sleeping = coordination.start_python_runner(SLEEPER, "--name", "sleeping")
    run_id, session_id = coordination.submit("x", max_attempts=2)
    (first,) = pids(coordination, session_id, 1)
    sleeping.freeze()
    coordination.start_python_runner(SLEEPER, "--name", "awake")
    assert is_alive(first)
    _, second = pids(coordination, session_id, 2)
    sleeping.thaw()
    eventually(lambda: not is_alive(first), what="the end of the first process")
    eventually(lambda: "suspended" in sleeping.log() and "claim_lost" in sleeping.log())
    run = coordination.run(run_id)
    assert (run["status"], run["attempt"], is_alive(second)) == ("running", 2, True)
    again, _ = coordination.submit("x", additional_demands={"executor_profile": "sleeping"})
    coordination.until(again, "running")


def heartbeats(url: str = "http://127.0.0.1:9", wake: Callable[[], None] = lambda: None) -> Heartbeats:
    client = CoordinatorClient(url, patience_seconds=0)
    options = RunnerOptions(urls=(), command=("x",), profile="p", hostname="h", project_dir="/")
    registration = RunnerRegistration(client, options.identity())
    return Heartbeats(client, registration, Reporting(client, registration), held=list, wake=wake)


@pytest.mark.parametrize("moment", ["between heartbeats", "with a heartbeat in flight"])
async def test_heartbeat_follows_sleep_of_machine_at_once(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Leave a timer of an hour at the first look after the sleep, and wake the poll."""
    asleep, readings = 0.0, 0
    arrived: asyncio.Queue[None] = asyncio.Queue()
    may_answer, watched, woken, ended = (asyncio.Event() for _ in range(4))
    real = clock.elapsed

    def elapsed() -> float:
        nonlocal readings
        readings += 1
        # One by the sender, one by the watch.
        if readings == 2:
            watched.set()
        return real() + asleep

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                (length,) = re.findall(rb"(?i)content-length: (\d+)", head)
                await reader.readexactly(int(length))
                arrived.put_nowait(None)
                await may_answer.wait()
                writer.write(ANSWER)
        await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        sender = heartbeats(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", woken.set)
        monkeypatch.setattr(clock, "elapsed", elapsed)
        is_in_flight = moment == "with a heartbeat in flight"
        sender._registration.heartbeat_seconds = 0 if is_in_flight else 3600
        beating = asyncio.create_task(sender.beat())
        await watched.wait()
        if is_in_flight:
            await arrived.get()
        sender._registration.heartbeat_seconds = 3600
        asleep = 1800.0
        await woken.wait()
        may_answer.set()
        await arrived.get()
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        await sender._client.aclose()
        await ended.wait()


def test_absence_clock_runs_during_suspend() -> None:
    """Read CLOCK_BOOTTIME on Linux; CLOCK_MONOTONIC, which time.monotonic() reads, would stand still."""
    if sys.platform == "linux":
        assert clock._CLOCK == time.CLOCK_BOOTTIME
    else:
        assert clock._CLOCK == time.CLOCK_MONOTONIC
    first = clock.elapsed()
    assert clock.elapsed() >= first


async def test_heartbeat_answer_ends_only_executions_it_named() -> None:
    """Spare a claim that came while the heartbeat was in flight."""

    class Noted(Execution):
        reason: Reason | None = None

        def end(self, reason: Reason) -> None:
            self.reason = reason

    def noted(run_id: str) -> Noted:
        run = cast("Any", {"run_id": run_id, "session_id": "s", "claim_token": "t"})
        return Noted(run, Command(["x"], "/"), cast("Any", None))

    kept, lost, newer = noted("run_1"), noted("run_2"), noted("run_2")
    heartbeats()._end_lost([kept, lost], ["run_2"])
    assert [execution.reason for execution in (kept, lost, newer)] == [None, Reason.LOST, None]
