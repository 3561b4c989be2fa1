"""Kill workers while children end and parents are resumed: each parent is told of each child once (promise 2)."""

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime.settings import Settings
from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.parents import deliver, ended_child, heard_of, prompts, waiting
from tests.support.reports import finished
from tests.support.web import WebClient


class _RunnerThread(threading.Thread):
    """Runner until it is stopped; its errors are raised at the end."""

    def __init__(self, url: str, name: str, over: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self._client = WebClient(url)
        self._over = over
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            runner = self._client.register(self.name, instance_id=self.name)
            while not self._over.is_set():
                answer = self._client.poll(runner, 1)
                if answer.status_code == httpx.codes.OK:
                    self._complete(answer.json()["run"], runner)
        except BaseException as fault:  # noqa: BLE001 raised again in the test's own thread
            self.fault = fault
        finally:
            self._client.close()

    def _complete(self, run: dict[str, Any], runner: str) -> None:
        session_id = run["session_id"]
        result = {
            "event_type": "result",
            "session_id": session_id,
            "timestamp": "t",
            "result_text": f"of {session_id}",
            "claim_token": run["claim_token"],
        }
        self._client.report(run, runner, "started").raise_for_status()
        self._client.post(f"/sessions/{session_id}/events", result).raise_for_status()
        self._client.report(run, runner, "completed").raise_for_status()


@contextmanager
def runners_at(urls: Sequence[str], runners: int = 4) -> Iterator[None]:
    """Let so many runners work until the end of the block."""
    over = threading.Event()
    threads = [_RunnerThread(urls[place % len(urls)], f"serving-{place}", over) for place in range(runners)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    for thread in threads:
        if thread.fault is not None:
            raise thread.fault


CHILD = {"execution_mode": "async_callback"}
# Kill a worker with the run inserted but not committed, or committed but not announced.
KILLED = """
import os, signal, sys
import workers.callbacks
from runtime.settings import Settings
from runtime.wakeups import ActorWakeupSender
from workers.context import worker_context

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

deliver = workers.callbacks.deliver_results
if sys.argv[3] == "before the commit":
    workers.callbacks.deliver_results = lambda *args, **how: die(deliver(*args, **how))
else:
    ActorWakeupSender.notify = die
with worker_context(Settings(database_url=sys.argv[1], redis_url=sys.argv[2]), threads=1) as context:
    workers.callbacks.resume_parents(context)
"""


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
def test_worker_killed_within_a_pass_leaves_no_half_of_it(settings: Settings, db: DbVerbs, moment: str) -> None:
    """Commit both the run and the delivery of its results, or neither."""
    parent = finished(db)
    children = [ended_child(db, parent).session_id for _ in range(2)]
    command = [sys.executable, "-c", KILLED, settings.database_url, settings.redis_url, moment]
    process = subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
    assert process.returncode == -signal.SIGKILL
    there = moment == "after the commit"
    eventually(lambda: len(prompts(db, parent)) == there)
    assert waiting(db, parent) == ([] if there else children)
    eventually(lambda: deliver(db).runs or heard_of(db, parent))
    assert heard_of(db, parent) == children


def test_children_that_end_while_workers_die_are_told_once(cluster: Cluster, db: DbVerbs) -> None:
    """Kill every worker of the beginning; the next one finds what they left."""
    webs, workers = cluster.start_processes(workers=2)
    clients = [WebClient(web.url) for web in webs]
    children: dict[str, list[str]] = {clients[0].submit()["session_id"]: [] for _ in range(4)}

    def submit_children(each: int) -> None:
        for number in range(each):
            for parent, sessions in children.items():
                child = clients[number % 2].submit(parent_session_id=parent, **CHILD)
                sessions.append(child["session_id"])

    def heard() -> int:
        return sum(len(heard_of(db, parent)) for parent in children)

    def all_heard() -> bool:
        quiet = db.count("runs", "status NOT IN ('completed', 'failed', 'stopped')") == 0
        return quiet and not any(waiting(db, parent) for parent in children)

    with runners_at([web.url for web in webs]):
        for worker in workers:
            before = heard()
            submit_children(6)
            eventually(lambda before=before: heard() > before, 30, every=0.02)
            worker.kill()
        submit_children(2)
        cluster.start_worker()
        eventually(all_heard, 60, every=0.1, what="the last child told")
    for parent, sessions in children.items():
        assert Counter(heard_of(db, parent)) == Counter(sessions)
    for client in clients:
        client.close()
