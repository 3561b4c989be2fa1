"""Scenarios of answers that are lost, late or unread, each with its check: unbroken, and with a part broken."""

import asyncio
from dataclasses import asdict

from models.claims.delivery import Claim, release_claims
from tests.support.cut_calls import call_bytes, hold
from tests.support.db_verbs import DbVerbs
from tests.support.dispatch_pass import dispatch_waiting
from tests.support.postgres_proxy import PostgresProxy
from tests.support.waiting import eventually
from tests.support.web import WebInThread

TIMESTAMP = "2026-01-01T00:00:00Z"


def old_message_delivers_nothing(db: DbVerbs, web: WebInThread) -> None:
    """Give a thawed process a message about a claim that has ended (promise 1).

    The re-check must be off: nothing else serves the poll here.
    """
    early, late = web.client.register("early"), web.client.register("late")
    poll = web.client.meanwhile(web.client.poll, early, 3)
    web.until_parked()
    run_id = web.client.submit()["run_id"]
    (assignments,) = db.do(dispatch_waiting).by_instance.values()
    db.do(release_claims, [Claim(one.run_id, one.claim_token) for one in assignments])
    assert web.client.claim(late)["run_id"] == run_id
    polls = web.app.state.web.polls
    web.app.state.web.drain._loop.call_soon_threadsafe(polls.deliver, [asdict(one) for one in assignments])
    answer = poll.result(30)
    assert answer.status_code == 204, "handed out twice"


def submission_with_lost_answer_makes_one_run(db: DbVerbs, web: WebInThread, proxy: PostgresProxy) -> None:
    """The web repeats it by itself, without a key of the client (promise 2)."""
    proxy.lose("INSERT INTO runs")
    run_id = web.client.submit()["run_id"]
    assert proxy.lost == 1
    stored = [row.run_id for row in db.rows("SELECT run_id FROM runs")]
    assert stored == [run_id], "stored twice"


def claim_with_lost_answer_takes_one_run(db: DbVerbs, web: WebInThread, proxy: PostgresProxy) -> None:
    """The repeat finds the first try's claim for the poll (promise 1)."""
    runner = web.client.register()
    for _ in range(2):
        web.client.submit()
    proxy.lose("SET status = 'claimed'")
    run_id = web.client.claim(runner)["run_id"]
    assert proxy.lost == 1
    claimed = [row.run_id for row in db.rows("SELECT run_id FROM runs WHERE status = 'claimed'")]
    assert claimed == [run_id], "claimed for an unknown poll"


def event_with_lost_answer_is_stored_once(db: DbVerbs, web: WebInThread, proxy: PostgresProxy) -> None:
    """Send it without a key of the client."""
    session_id = web.client.submit()["session_id"]
    proxy.lose("INSERT INTO events")
    event = {"event_type": "message", "session_id": session_id, "timestamp": TIMESTAMP}
    assert web.client.post(f"/sessions/{session_id}/events", event).status_code == 201
    assert proxy.lost == 1
    assert db.told_kinds(session_id).count("event") == 1, "stored twice"


def disconnected_client_takes_no_run(db: DbVerbs, web: WebInThread) -> None:
    """Disconnect a client while its poll is parked: a run submitted then goes to the next poll at once (promise 1)."""
    hasty, patient = web.client.register("hasty"), web.client.register("patient")

    async def poll_and_go() -> None:
        call = await hold(web.client.url, call_bytes(web.client.url, "GET", f"/runner/runs?runner_id={hasty}&wait=30"))
        await asyncio.to_thread(web.until_parked)
        assert not await call.hang_up()

    asyncio.run(poll_and_go())
    run_id = web.client.submit()["run_id"]
    # Ended by its own process, or claimed for by its re-check.
    eventually(lambda: not db.waiting(), 20, what="the end of the first poll")
    taken = db.run(run_id).runner_id
    answer = web.client.poll(patient, 3)
    assert answer.status_code == 200, f"taken along by {taken}"
    assert answer.json()["run"]["run_id"] == run_id
