"""Scenarios of what a parked poll must be told at once, on another instance than the one that did it, without the
re-check.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import httpx
from sqlalchemy import Connection, text

from models.claims.claim import Ask
from models.claims.parking import poll_holders
from models.claims.polls import Answer, answer_polls
from models.core.callers import ADMIN
from models.runs.stop import OpenStop, StopSession, open_stops, stop_sessions
from models.runs.superseded import end_former_processes
from runtime.settings import Settings
from tests.support import clocks
from tests.support.cut_calls import call_bytes, hold
from tests.support.db_verbs import DbVerbs, Runner, poll_request, told
from tests.support.parking import CLAIM, FIND_NOTHING, LOOK, PARK, Step
from tests.support.waiting import eventually
from tests.support.web import WebInThread, served, until_ready
from workers.context import worker_context
from workers.expiry import expire_due

# A poll without a wake-up ends after this time, since there is no re-check.
WAIT_SECONDS = 4
NEVER = 3600.0
HELD_UP = 4711
STOP: Step = "stopped"


@dataclass
class Pair:
    """Two web instances on one database and one Redis: requests go to ``here``, polls wait at ``there``."""

    here: WebInThread
    there: WebInThread
    woken: list[str]

    def poll(self, runner_id: str, **query: Any) -> "Future[httpx.Response]":
        """Park a poll at the other instance."""
        before = self.there.parked
        call = self.there.client.meanwhile(self.there.client.poll, runner_id, WAIT_SECONDS, **query)
        self.there.until_parked(before + 1)
        return call

    def running(self, runner_id: str) -> dict[str, Any]:
        """Start a run at this runner."""
        return self.here.client.started(runner_id)


@contextmanager
def pair(settings: Settings) -> Iterator[Pair]:
    """Serve both, with re-checks further away than any test is long."""
    patient = settings.model_copy(update={"recheck_seconds": NEVER})
    with served(patient) as here, served(patient) as there:
        for web in (here, there):
            until_ready(web)
            eventually(partial(getattr, web.app.state.web.subscription, "connected"), 20, what="a subscription")
        yield Pair(here, there, noted(there))


def noted(web: WebInThread) -> list[str]:
    """Record the runners of all wake-ups that reach this instance through Redis, once it has handled them."""
    woken: list[str] = []
    subscription = web.app.state.web.subscription
    take = subscription._handlers.rechecks

    def note(runner_ids: list[str]) -> None:
        take(runner_ids)
        woken.extend(runner_ids)

    subscription._handlers = replace(subscription._handlers, rechecks=note)
    return woken


def stop_reaches_poll_on_another_instance(both: Pair) -> None:
    """Stop a session's active run."""
    runner_id = both.here.client.register()
    run = both.running(runner_id)
    poll = both.poll(runner_id)
    assert both.here.client.post(f"/runs/{run['run_id']}/stop").json()["status"] == "stopping"
    answer = poll.result(30)
    assert answer.status_code == 200, "not told"
    assert answer.json() == {"stop_sessions": [run["session_id"]]}


def blind_to_polls(conn: Connection, stops: Sequence[OpenStop]) -> dict[str, frozenset[str]]:
    """Open stops as ``open_stops`` does, but see no parked polls, as when they are parked later."""
    return dict.fromkeys(open_stops(conn, stops), frozenset())


def tells_no_runner(*arguments: Any) -> dict[str, str]:
    """End former processes as ``end_former_processes`` does, and name none of their runners."""
    end_former_processes(*arguments)
    return {}


def timeout_reaches_poll_on_another_instance(both: Pair, db: DbVerbs, settings: Settings) -> None:
    """Let a worker's expiry stop the run."""
    runner_id = both.here.client.register()
    run = both.here.client.started(runner_id, run_timeout_seconds=60)
    poll = both.poll(runner_id)
    clocks.due(db, run["run_id"], "run_deadline_at")
    with worker_context(settings, threads=1) as context:
        assert expire_due(context, 0)
    answer = poll.result(30)
    assert answer.status_code == 200, "not told"
    assert answer.json() == {"stop_sessions": [run["session_id"]]}


def former_runner_is_told_of_a_start_elsewhere(both: Pair) -> None:
    """Resume its session at another runner while it keeps the process idle."""
    former = both.here.client.register("former")
    run = both.here.client.started(former)
    assert both.here.client.report(run, former, "completed", session_status="idle").status_code == 200
    latter = both.here.client.register("latter")
    poll = both.poll(former)
    demands = {"additional_demands": {"hostname": "latter"}, "affinity": False}
    both.here.client.resume(run["session_id"], **demands)
    resumed = both.here.client.claim(latter)
    assert both.here.client.report(resumed, latter, "started").status_code == 200
    answer = poll.result(30)
    assert answer.status_code == 200, "not told"
    assert answer.json() == {"stop_sessions": [run["session_id"]]}


def replaced_process_is_told(both: Pair, db: DbVerbs) -> None:
    """Park its poll at one instance, and register its successor at the other."""
    runner_id = both.here.client.register()
    poll = both.poll(runner_id)

    def is_replaced() -> bool:
        # Repeat it: the heartbeat of the poll may be written only now.
        clocks.fall_silent(db, Runner(runner_id, 0), 200)
        return both.here.client.try_register().status_code == 200

    eventually(is_replaced, what="the process of a silent runner is replaced")
    answer = poll.result(30)
    assert answer.status_code == 200, "not told"
    assert answer.json() == {"deregistered": True}


def held_up(verb: Callable[..., list[Answer]]) -> Callable[..., list[Answer]]:
    """Delay the end of a verb: its transaction ends when the test releases the lock."""

    def hold_up(conn: Connection, asks: Sequence[Ask], **limits: Any) -> list[Answer]:
        answers = verb(conn, asks, **limits)
        conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": HELD_UP})
        return answers

    return hold_up


@contextmanager
def holding_up(db: DbVerbs) -> Iterator[None]:
    """Hold the lock until the end of the block."""
    with db.engine.begin() as holder:
        holder.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": HELD_UP})
        yield


def stop_reaches_poll_that_is_about_to_park(both: Pair, db: DbVerbs) -> None:
    """Stop the run after its second claim has read and before that ends: ``held_up`` in place of ``claim_parked``."""
    runner_id = both.here.client.register()
    run = both.running(runner_id)
    with holding_up(db):
        poll = both.there.client.meanwhile(both.there.client.poll, runner_id, WAIT_SECONDS)
        eventually(lambda: db.rows(_WAITS), what="a second claim that has looked")
        assert both.here.client.post(f"/runs/{run['run_id']}/stop").json()["status"] == "stopping"
        eventually(lambda: both.woken, what="the wake-up")
    answer = poll.result(30)
    assert answer.status_code == 200, "not told"
    assert answer.json() == {"stop_sessions": [run["session_id"]]}


def undelivered_answer_is_told_again(both: Pair, db: DbVerbs, *, leave: bool) -> None:
    """Disconnect while a first answer tells a stop or a leave and is not committed yet (``held_up``)."""
    runner_id = both.here.client.register()
    run = both.running(runner_id)
    if leave:
        assert both.here.client.http.delete(f"/runners/{runner_id}").status_code == 200
    else:
        assert both.here.client.post(f"/runs/{run['run_id']}/stop").json()["status"] == "stopping"

    async def poll_and_go() -> None:
        url = both.there.client.url
        call = await hold(url, call_bytes(url, "GET", f"/runner/runs?runner_id={runner_id}&wait=30"))
        await asyncio.to_thread(eventually, lambda: db.rows(_WAITS), what="an answer that is not committed")
        assert not await call.hang_up()

    with holding_up(db):
        asyncio.run(poll_and_go())
    eventually(lambda: not both.there.app.state.web.polls.clean_ups._tasks, what="the end of the poll's clean-up")
    answer = both.there.client.poll(runner_id, WAIT_SECONDS)
    assert answer.status_code == 200, "not told"
    assert answer.json() == ({"deregistered": True} if leave else {"stop_sessions": [run["session_id"]]})


_WAITS = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def is_told(db: DbVerbs, order: tuple[Step, ...]) -> bool:
    """Return whether the poll was told the stop by itself, or the stop learned which instance holds the poll."""
    runner = db.runner()
    session_id = db.start().session_id
    (run,) = db.claim(runner)
    assert run.session_id == session_id
    poll = poll_request(runner)
    stops: list[str] = []
    looks: list[bool] = []
    with db.engine.connect() as parking:

        def claim() -> None:
            if not stops:
                stops.extend(db.second(poll)[0].stop_sessions)

        steps: dict[Step, Callable[[], object]] = {
            FIND_NOTHING: lambda: stops.extend(told(answer_polls(parking, [poll])[0]).stop_sessions),
            PARK: parking.commit,
            CLAIM: claim,
            STOP: lambda: db.do(stop_sessions, [StopSession(ADMIN, session_id)]),
            LOOK: lambda: looks.append(bool(db.do(poll_holders, [runner.runner_id]))),
        }
        for step in order:
            steps[step]()
    return bool(stops) or any(looks)
