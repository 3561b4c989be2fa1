"""Stops, leaves and newer registrations wake a poll on another instance at once, without a re-check."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import orjson
import pytest
from redis import Redis
from redis.client import PubSub

from app.polls.wakeups import told_runners
from app.writes import queues
from models.claims.poll_stops import Undelivered
from models.claims.polls import answer_polls, claim_parked
from models.core.callers import ADMIN
from models.runners.leave import Left
from models.runners.register import Registered
from models.runs.stop import Stopped, StopSession
from runtime import subscriptions
from runtime.names import recheck_channel
from runtime.redis_client import sync_client
from runtime.settings import Settings
from runtime.subscriptions import publish_rechecks, recheck_messages
from tests.support import wakeup_scenarios
from tests.support.db_verbs import DbVerbs
from tests.support.parking import CLAIM, FIND_NOTHING, LOOK, PARK, orders
from tests.support.waiting import eventually
from tests.support.wakeup_scenarios import STOP, Pair, is_told, pair


@pytest.fixture
def both(settings: Settings) -> Iterator[Pair]:
    with pair(settings) as both:
        yield both


def test_stop_of_run_reaches_its_runners_poll_on_another_instance(both: Pair) -> None:
    """Wake through Redis, confirm in Postgres."""
    wakeup_scenarios.stop_reaches_poll_on_another_instance(both)
    assert both.woken


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


def test_stop_of_timed_out_run_reaches_its_runners_poll_from_worker(
    both: Pair, settings: Settings, db: DbVerbs
) -> None:
    """Wake the instance after expiry's commit."""
    wakeup_scenarios.timeout_reaches_poll_on_another_instance(both, db, settings)


def test_start_elsewhere_reaches_former_runners_poll_on_another_instance(both: Pair) -> None:
    """End its idle process without waiting for the re-check."""
    wakeup_scenarios.former_runner_is_told_of_a_start_elsewhere(both)


def test_stop_finds_poll_parked_during_its_commit(both: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Find it by the look after the commit, since the verb saw none."""
    monkeypatch.setattr("models.runs.stop.open_stops", wakeup_scenarios.blind_to_polls)
    wakeup_scenarios.stop_reaches_poll_on_another_instance(both)


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
    wakeup_scenarios.replaced_process_is_told(both, db)

    runner_id = db.one("SELECT runner_id FROM runners")
    later = both.poll(runner_id)
    run = both.here.client.submit()
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


def test_message_names_bounded_number_of_runners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the others in further messages."""
    monkeypatch.setattr(subscriptions, "RUNNERS_A_MESSAGE", 2)
    messages = recheck_messages({"web-1": ["a", "b", "c"], "web-2": ["d"]})
    assert [(channel, orjson.loads(payload)) for channel, payload in messages] == [
        (recheck_channel("web-1"), ["a", "b"]),
        (recheck_channel("web-1"), ["c"]),
        (recheck_channel("web-2"), ["d"]),
    ]


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([Stopped("s", "r", "stopping", runner_to_notify="a"), Stopped("t", None, "stopped")], {"a": set()}),
        ([Left("a", "external"), Left("b", "self", frozenset({"web-1"}))], {"a": set(), "b": {"web-1"}}),
        ([Registered("a", 60), Registered("b", 60, renumbered=True, parked_at=frozenset({"web-1"}))], {"b": {"web-1"}}),
        (
            [Stopped("s", "r", "stopping", runner_to_notify="b"), Left("b", "self", frozenset({"web-1"}))],
            {"b": {"web-1"}},
        ),
        ([Undelivered("a", ("s",))], {"a": set()}),
        (
            [Left("b", "self", frozenset({"web-1"})), Stopped("s", "r", "stopping", runner_to_notify="b")],
            {"b": {"web-1"}},
        ),
    ],
)
def test_only_runners_with_orders_are_woken(results: Sequence[Any], expected: dict[str, set[str]]) -> None:
    """Wake none on a first registration."""
    assert told_runners(results) == expected


@pytest.mark.parametrize("order", orders((FIND_NOTHING, PARK, CLAIM), (STOP, LOOK)), ids=" | ".join)
def test_stop_reaches_poll_in_every_order_of_commits(db: DbVerbs, order: tuple[str, ...]) -> None:
    """Find the stop by the poll itself, or the poll by the look after the stop's commit."""
    assert is_told(db, order)


def test_stop_reaches_poll_whose_second_claim_had_looked_before(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Remember a wake-up that finds the poll busy."""
    monkeypatch.setattr(queues, "claim_parked", wakeup_scenarios.held_up(claim_parked))
    with pair(settings) as both:
        wakeup_scenarios.stop_reaches_poll_that_is_about_to_park(both, db)


@pytest.mark.parametrize("leave", [False, True])
def test_undelivered_orders_reach_next_poll_of_client_that_hung_up(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch, *, leave: bool
) -> None:
    """Withdraw the note that they were told.

    Otherwise a stop waits ten seconds, and after a leave the poll is refused.
    """
    monkeypatch.setattr(queues, "answer_polls", wakeup_scenarios.held_up(answer_polls))
    with pair(settings) as both:
        wakeup_scenarios.undelivered_answer_is_told_again(both, db, leave=leave)


def test_stop_is_told_first_and_releases_assigned_run(db: DbVerbs) -> None:
    """Lose the message of the assignment: another poll gets the run, and no registration is excluded."""
    runner, other = db.runner(), db.runner()
    stopped = db.start().session_id
    db.claim(runner)
    poll = db.park(runner)
    run_id = db.start().run_id
    assert db.dispatch() == {poll.poll_id: [run_id]}
    db.rows(
        "INSERT INTO stop_commands (runner_id, registration, session_id, deadline_at) "
        "VALUES (:r, :n, :s, now() + interval '1 minute')",
        r=runner.runner_id,
        n=runner.registration,
        s=stopped,
    )

    (answer,) = db.recheck(poll)

    assert (answer.stop_sessions, answer.runs, answer.passed_over) == ([stopped], [], True)
    assert db.run(run_id).status == "pending"
    assert [run.run_id for run in db.claim(other)] == [run_id]


@pytest.mark.parametrize("look", ["recheck", "second"])
def test_leave_is_told_before_assigned_run_and_once(db: DbVerbs, look: str) -> None:
    """Tell it before it counts as told, or the next poll would be refused without a reason."""
    runner = db.runner()
    poll = db.park(runner)
    run_id = db.start().run_id
    assert db.dispatch() == {poll.poll_id: [run_id]}
    db.rows("UPDATE runners SET leave_requested_at = now()")
    ask: Callable[..., Any] = getattr(db, look)

    (answer,) = ask(poll)

    assert (answer.deregistered, answer.runs) == (True, [])
    assert db.run(run_id).status == "pending"
