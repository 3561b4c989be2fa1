"""Provide work for each actor, and a check of its result that holds however often the actor ran."""

from collections.abc import Callable

from runtime.names import Actor
from tests.support import parents, retention
from tests.support.clocks import add_outage, fall_silent
from tests.support.db_verbs import DbVerbs
from tests.support.reports import finished, running

Check = Callable[[], None]
MONTH = 31 * 86_400.0


def polls_and_runs(db: DbVerbs) -> Check:
    """Park three polls and submit two runs: each run goes to one poll, and the third poll stays parked."""
    polls = {db.park(db.runner()).poll_id for _ in range(3)}
    run_ids = [db.start().run_id for _ in range(2)]

    def check() -> None:
        runs = [db.run(run_id) for run_id in run_ids]
        taken = {run.claim_poll_id for run in runs}
        assert [run.status for run in runs] == ["claimed"] * 2
        assert (len(taken), polls - taken) == (2, db.waiting())

    return check


def unnumbered_events(db: DbVerbs) -> Check:
    """Write events whose positions must become dense: no hole, and none twice."""
    running(db)

    def check() -> None:
        positions = [row.feed_pos for row in db.rows("SELECT feed_pos FROM events ORDER BY id")]
        assert positions == list(range(1, len(positions) + 1))

    return check


def result_of_a_child(db: DbVerbs) -> Check:
    """End a child; its parent is told in one run."""
    parent = finished(db)
    child = parents.ended_child(db, parent)

    def check() -> None:
        assert parents.heard_of(db, parent) == [child.session_id]

    return check


def silent_runner(db: DbVerbs) -> Check:
    """Let a runner fall silent; its run fails once."""
    runner = db.runner()
    run = running(db, runner)
    fall_silent(db, runner, 181)

    def check() -> None:
        assert db.run(run.run_id).status == "failed"
        assert db.told_kinds(run.session_id).count("run_failed") == 1

    return check


def outage_of_last_month(db: DbVerbs) -> Check:
    """Record an old outage, which is removed, and one of today, which stays."""
    add_outage(db, "expiry", MONTH + 60, MONTH)
    add_outage(db, "web", 7200, 7100)

    def check() -> None:
        assert [row.kind for row in db.rows("SELECT kind FROM gaps")] == ["web"]

    return check


def expired_history(db: DbVerbs) -> Check:
    """Write expired events, which are removed, and younger ones, which stay."""
    retention.old_history(db, 3)
    run = running(db)
    young = db.count("events", "session_id = :s", s=run.session_id)

    def check() -> None:
        assert db.count("events") == young > 0

    return check


WORK: dict[Actor, Callable[[DbVerbs], Check]] = {
    Actor.DISPATCH: polls_and_runs,
    Actor.BROADCAST: unnumbered_events,
    Actor.CALLBACKS: result_of_a_child,
    Actor.EXPIRE: silent_runner,
    Actor.UPKEEP: outage_of_last_month,
    Actor.RETENTION: expired_history,
}
