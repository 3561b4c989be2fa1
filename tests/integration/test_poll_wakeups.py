"""Stops, leaves and newer registrations wake a poll on another instance at once, without a re-check."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import httpx
import orjson
import pytest
from redis import Redis
from redis.client import PubSub
from sqlalchemy import Connection, text

from app.writes import queues
from models.claims.claim import Ask
from models.claims.polls import Answer, answer_polls, claim_parked
from models.core.callers import ADMIN
from models.core.plain import NOT_PLAIN, NotPlain
from models.runs import stop_plain
from models.runs.stop import OpenStop, StopSession, open_stops
from models.runs.superseded import end_former_processes
from runtime.names import recheck_channel
from runtime.pubsub import publish_rechecks
from runtime.redis_client import sync_client
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support import clocks
from tests.support.cut_calls import call_bytes, hold
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.mutation import break_statement
from tests.support.web import WebInThread, served, until_ready
from workers.context import worker_context
from workers.expiry import expire_due

# A poll without a wake-up ends after this time, since there is no re-check.
WAIT_SECONDS = 4
NEVER = 3600.0
HELD_UP = 4711


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
            eventually(partial(getattr, web.app.state.web.subscription, "connected"), what="a subscription")
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


@pytest.fixture
def both(settings: Settings) -> Iterator[Pair]:
    with pair(settings) as both:
        yield both


def test_stop_of_run_reaches_its_runners_poll_on_another_instance(both: Pair) -> None:
    """Wake through Redis, confirm in Postgres."""
    runner_id = both.here.client.register()
    run = both.running(runner_id)
    poll = both.poll(runner_id)
    assert both.here.client.post(f"/runs/{run['run_id']}/stop").json()["status"] == "stopping"
    answer = poll.result(30)
    assert answer.status_code == 200, "not told"
    assert answer.json() == {"stop_sessions": [run["session_id"]]}
    assert both.woken


def let_stops_see_no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stops find no parked polls, as when these are parked later."""

    def blind(conn: Connection, stops: Sequence[OpenStop]) -> dict[str, frozenset[str]]:
        return dict.fromkeys(open_stops(conn, stops), frozenset())

    monkeypatch.setattr("models.runs.stop.open_stops", blind)
    for statement in ("_STOP_SESSIONS", "_STOP_RUNS"):
        break_statement(monkeypatch, stop_plain, statement, {"w.runner_id = m.runner_id": "false"})


def tells_no_runner(*arguments: Any) -> dict[str, str]:
    """End former processes as ``end_former_processes`` does, and name none of their runners."""
    end_former_processes(*arguments)
    return {}


def test_stop_of_timed_out_run_reaches_its_runners_poll_from_worker(
    both: Pair, db: DbVerbs, settings: Settings
) -> None:
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


def test_start_elsewhere_reaches_former_runners_poll_on_another_instance(both: Pair) -> None:
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


def left_to_the_verb(_: Connection, asks: Sequence[Ask], **__: Any) -> list[NotPlain]:
    """Take the place of a statement of plain polls, so that the verb ends in a transaction that can be held up."""
    return [NOT_PLAIN] * len(asks)


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


def test_stop_of_idle_session_reaches_its_runners_poll_on_another_instance(both: Pair, db: DbVerbs) -> None:
    """Stop a session that no run holds; the row counts as sent once."""
    runner_id = both.here.client.register()
    run = both.running(runner_id)
    assert both.here.client.report(run, runner_id, "completed", session_status="idle").status_code == 200
    poll = both.poll(runner_id)
    both.here.client.post(f"/sessions/{run['session_id']}/stop")
    assert poll.result(30).json() == {"stop_sessions": [run["session_id"]]}
    sent_at = db.one("SELECT sent_at FROM stop_commands")

    quiet = both.poll(runner_id)
    both.here.client.post(f"/sessions/{run['session_id']}/stop")
    assert quiet.result(30).status_code == 204, "told again within ten seconds"
    assert db.one("SELECT sent_at FROM stop_commands") == sent_at


def test_stop_finds_poll_parked_during_its_commit(both: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Find it by the look after the commit, since the verb saw none."""
    let_stops_see_no_polls(monkeypatch)
    test_stop_of_run_reaches_its_runners_poll_on_another_instance(both)


@pytest.mark.parametrize(("itself", "status"), [("", 200), ("?self=true", 401)], ids=["told to", "by itself"])
def test_leave_reaches_runners_poll_on_another_instance(both: Pair, itself: str, status: int) -> None:
    """Answer the poll of a runner told to leave; refuse that of one that has left."""
    runner_id = both.here.client.register()
    poll = both.poll(runner_id)
    assert both.here.client.http.delete(f"/runners/{runner_id}{itself}").status_code == 200
    answer = poll.result(30)
    assert answer.status_code == status
    assert status == 401 or answer.json() == {"deregistered": True}


def test_poll_of_replaced_process_is_told_to_leave_at_once(both: Pair, db: DbVerbs) -> None:
    """Give it none of its successor's runs; do not tell the successor to leave."""
    replaced_process_is_told(both, db)

    runner_id = db.one("SELECT runner_id FROM runners")
    later = both.poll(runner_id)
    run = both.here.client.submit(additional_demands={"hostname": "another"})
    both.here.client.post(f"/sessions/{run['session_id']}/stop")
    assert later.result(30).status_code == 204
    assert db.count("runners", "leave_told_at IS NULL AND left_at IS NULL") == 1


def test_poll_of_process_with_changed_offer_stays_parked_under_its_new_number(both: Pair, db: DbVerbs) -> None:
    """Let dispatch find it at once."""
    runner_id = both.here.client.register(instance_id="one", tags=["a"])
    poll = both.poll(runner_id)
    assert both.here.client.register(instance_id="one", tags=["a", "b"]) == runner_id
    eventually(partial(db.rows, "SELECT FROM waiting_polls JOIN runners USING (runner_id, registration)"))
    assert poll.result(30).status_code == 204


def test_wakeup_without_orders_ends_no_poll(both: Pair, settings: Settings, db: DbVerbs) -> None:
    """Ignore an old wake-up of a frozen process: Postgres decides."""
    runner_id = both.here.client.register()
    poll = both.poll(runner_id)
    with closing(sync_client(settings.redis_url)) as client:
        publish_rechecks(client, {both.there.app.state.web.instance: [runner_id, "lnch_unknown"]})
    eventually(lambda: both.woken == [runner_id, "lnch_unknown"])
    assert poll.result(30).status_code == 204


def test_stops_of_many_runners_of_one_instance_are_one_message(both: Pair, settings: Settings, db: DbVerbs) -> None:
    """Commit, look and publish once."""
    runner_ids = [both.here.client.register(f"host-{number}") for number in range(3)]
    runs = [both.running(runner_id) for runner_id in runner_ids]
    polls = [both.poll(runner_id) for runner_id in runner_ids]
    inside = both.here.app.state.web
    stops = [(StopSession(ADMIN, run["session_id"]), 0) for run in runs]
    with closing(sync_client(settings.redis_url)) as client, subscribed(client) as heard:
        heard.subscribe(recheck_channel(both.there.app.state.web.instance))
        eventually(lambda: heard.get_message(timeout=1))

        def stop_all() -> None:
            inside.verbs.stop_sessions._linger = lambda: 0.05
            inside.drain._loop.create_task(inside.verbs.stop_sessions.many(stops))

        inside.drain._loop.call_soon_threadsafe(stop_all)
        message: Any = eventually(lambda: heard.get_message(timeout=1))
        told = [poll.result(30).json()["stop_sessions"] for poll in polls]
        assert heard.get_message(timeout=0) is None
    assert orjson.loads(message["data"]) == sorted(runner_ids)
    assert told == [[run["session_id"]] for run in runs]


def subscribed(client: Redis) -> PubSub:
    heard: PubSub = client.pubsub()  # type: ignore[no-untyped-call]  # redis-py
    return heard


def test_stop_reaches_poll_whose_second_claim_had_looked_before(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Remember a wake-up that finds the poll busy."""
    monkeypatch.setattr(queues, "claim_plain_parked", left_to_the_verb)
    monkeypatch.setattr(queues, "claim_parked", held_up(claim_parked))
    with pair(settings) as both:
        stop_reaches_poll_that_is_about_to_park(both, db)


@pytest.mark.parametrize("leave", [False, True])
def test_undelivered_orders_reach_next_poll_of_client_that_hung_up(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch, *, leave: bool
) -> None:
    """Withdraw the note that they were told.

    Otherwise a stop waits ten seconds, and after a leave the poll is refused.
    """
    monkeypatch.setattr(queues, "answer_plain_polls", left_to_the_verb)
    monkeypatch.setattr(queues, "answer_polls", held_up(answer_polls))
    with pair(settings) as both:
        undelivered_answer_is_told_again(both, db, leave=leave)
