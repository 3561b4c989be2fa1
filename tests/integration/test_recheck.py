"""Re-check of parked polls: reads details of those that may have something to hear, and of no others."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from sqlalchemy import Connection, text

from models.claims import polls
from models.claims.claim import Ask
from models.claims.matching import Demands
from models.claims.polls import PollAnswer
from models.core.limits import Limits
from tests.support.db_verbs import DbVerbs, Runner

MINE = Demands(tags=("mine",))


def _runner_with(change: str) -> Callable[[DbVerbs, Runner], object]:
    return lambda db, runner: db.rows(f"UPDATE runners SET {change} WHERE runner_id = :r", r=runner.runner_id)


def _stopped(db: DbVerbs, runner: Runner) -> None:
    db.rows(
        "INSERT INTO stop_commands (runner_id, registration, session_id, deadline_at) "
        "VALUES (:r, :n, 's1', now() + interval '1 minute')",
        r=runner.runner_id,
        n=runner.registration,
    )


def _assigned(db: DbVerbs, _: Runner) -> None:
    db.start(additional_demands=MINE)
    assert len(db.dispatch()) == 1


CHANGES: dict[str, tuple[Callable[[DbVerbs, Runner], object], str]] = {
    "its row has vanished": (
        lambda db, runner: db.rows("DELETE FROM waiting_polls WHERE runner_id = :r", r=runner.runner_id),
        "renewed.poll_id IS NULL",
    ),
    "a run was assigned and the message lost": (_assigned, "renewed.poll_id IS NULL"),
    "its runner is forgotten": (
        lambda db, runner: db.rows("DELETE FROM runners WHERE runner_id = :r", r=runner.runner_id),
        "n.runner_id IS NULL",
    ),
    "its runner has registered anew": (
        _runner_with("registration = registration + 1000"),
        "n.registration IS DISTINCT FROM a.registration",
    ),
    "its runner has left": (
        _runner_with("left_at = now()"),
        "n.left_at IS NOT NULL",
    ),
    "its runner has to leave": (
        _runner_with("leave_requested_at = now()"),
        "n.leave_requested_at IS NOT NULL",
    ),
    "its runner drains": (
        _runner_with("draining_since = now()"),
        "(n.draining_since IS NOT NULL) <> a.draining",
    ),
    "its runner was lost": (
        _runner_with("lost_at = now()"),
        "n.lost_at IS NOT NULL",
    ),
    "its runner gives no sign": (
        _runner_with("last_seen = now() - interval '31 seconds'"),
        "n.last_seen < now()",
    ),
    "a session is to be stopped": (_stopped, "(SELECT true FROM stop_commands"),
}


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the polls whose details are read one by one."""
    seen: list[str] = []
    look = polls._read_contexts

    def noting(conn: Connection, asks: Sequence[Ask], limits: Limits) -> dict[str, polls.PollContext]:
        seen.extend(ask.poll_id for ask in asks)
        return look(conn, asks, limits)

    monkeypatch.setattr(polls, "_read_contexts", noting)
    return seen


def _two_parked(db: DbVerbs) -> tuple[Runner, Ask, Ask]:
    """Park a poll of a runner, and one of another."""
    runner = db.runner(tags=["mine"])
    return runner, db.park(runner), db.park(db.runner())


def _recheck(db: DbVerbs, looked_at: list[str], *asks: Ask) -> list[polls.Answer]:
    looked_at.clear()
    return db.poll(polls.recheck_polls, *asks)


def test_quiet_polls_are_renewed_without_reading_details(db: DbVerbs, looked_at: list[str]) -> None:
    _, first, second = _two_parked(db)
    db.rows("UPDATE waiting_polls SET seen_at = now() - interval '1 minute'")

    assert _recheck(db, looked_at, first, second) == [PollAnswer(parked=True)] * 2

    assert looked_at == []
    assert db.count("waiting_polls", "seen_at > now() - interval '30 seconds'") == 2


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mutation", ["", "not asked for"])
def test_poll_with_possible_news_is_read(
    db: DbVerbs, looked_at: list[str], monkeypatch: pytest.MonkeyPatch, change: str, mutation: str
) -> None:
    """Read no other; without the condition it goes unnoticed."""
    apply, question = CHANGES[change]
    runner, concerned, other = _two_parked(db)
    apply(db, runner)
    if mutation:
        asked = str(polls._FIND_CHANGED)
        assert asked.count(question) == 1
        left_out = asked.replace(question, f"false AND {question}")
        if change == "a run was assigned and the message lost":
            left_out = left_out.replace("(SELECT true FROM runs r", "false AND (SELECT true FROM runs r")
        if change == "its runner is forgotten":
            left_out = left_out.replace("n.registration IS DISTINCT", "false AND n.registration IS DISTINCT")
        monkeypatch.setattr(polls, "_FIND_CHANGED", text(left_out))

    _recheck(db, looked_at, concerned, other)

    assert looked_at == ([] if mutation else [concerned.poll_id])


def test_poll_is_read_when_its_runner_may_claim_ready_run(db: DbVerbs, looked_at: list[str]) -> None:
    """Claim by the re-check when no worker runs."""
    _, concerned, other = _two_parked(db)
    run_id = db.start(additional_demands=MINE).run_id

    answer, quiet = _recheck(db, looked_at, concerned, other)

    assert isinstance(answer, PollAnswer)
    assert [run.run_id for run in answer.runs] == [run_id]
    assert quiet == PollAnswer(parked=True)
    assert looked_at == [concerned.poll_id]
    assert db.waiting() == {other.poll_id}


def test_poll_that_was_never_parked_is_read(db: DbVerbs, looked_at: list[str]) -> None:
    """Park it late, as after a Postgres outage: its runner's offer is unknown so far."""
    _, first, second = _two_parked(db)
    looked_at.clear()

    answers = db.do(polls.recheck_polls, [replace(first, offer=None), second])

    assert answers == [PollAnswer(parked=True)] * 2
    assert looked_at == [first.poll_id]
    assert isinstance(answers[0], PollAnswer)
    assert answers[0].offer == first.offer is not None
