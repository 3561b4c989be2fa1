"""Stops and leaves that meet a parking poll: told by the poll itself, or found by the look after their commit."""

from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest

from app.polls.wakeups import runners_to_notify
from models.claims.parking import poll_holders
from models.claims.poll_stops import Undelivered
from models.claims.polls import answer_polls
from models.core.callers import ADMIN
from models.runners.leave import Left
from models.runners.register import Registered
from models.runs.stop import Stopped, StopSession, stop_sessions
from runtime import pubsub
from runtime.names import recheck_channel
from runtime.pubsub import recheck_messages
from tests.support.db_verbs import DbVerbs, poll_request, told
from tests.support.parking import CLAIM, FIND_NOTHING, LOOK, PARK, Step, orders

STOP: Step = "stopped"


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


def test_message_names_bounded_number_of_runners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the others in further messages."""
    monkeypatch.setattr(pubsub, "RUNNERS_A_MESSAGE", 2)
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
    assert runners_to_notify(results) == expected


@pytest.mark.parametrize("order", orders((FIND_NOTHING, PARK, CLAIM), (STOP, LOOK)), ids=" | ".join)
def test_stop_reaches_poll_in_every_order_of_commits(db: DbVerbs, order: tuple[str, ...]) -> None:
    """Find the stop by the poll itself, or the poll by the look after the stop's commit."""
    assert is_told(db, order)


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
