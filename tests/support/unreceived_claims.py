"""Claims whose answer never reached their runner, and claims that only seem so: heartbeats and polls in any order."""

from models.runners.heartbeat import Touch, touch_runners
from models.state.runs import Run
from tests.support.clocks import pass_time, tick
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.reports import accepted, claimed, report, say


def heartbeat(db: DbVerbs, runner: Runner, *run_ids: str) -> None:
    """Send a heartbeat that names what the runner holds, some time after the last one."""
    pass_time(db, "runners", "counted_beat_at", 10)
    db.do(touch_runners, [Touch(runner.runner_id, run_ids)])


def status(db: DbVerbs, run: Run) -> str:
    """Return the run's status after a pass of expiry."""
    tick(db)
    return str(db.run(run.run_id).status)


def claim_that_never_arrived_is_released(db: DbVerbs) -> None:
    """Poll again and send two heartbeats in a row that do not name the run: the waiting poll gets it."""
    runner = db.runner()
    run = claimed(db, runner)
    poll = db.park(runner)
    heartbeat(db, runner)
    assert status(db, run) == "claimed"
    heartbeat(db, runner)
    assert status(db, run) == "pending", "it waits for the start timeout"
    assert db.dispatch() == {poll.poll_id: [run.run_id]}
    (late,) = say(db, report(run, "started"))
    assert type(late).__name__ == "StaleClaim"


def claim_named_by_the_second_heartbeat_is_kept(db: DbVerbs) -> None:
    """Send the first heartbeat while the answer is on its way."""
    runner = db.runner()
    run = claimed(db, runner)
    db.park(runner)
    for held in ([], [run.run_id], [], [run.run_id]):
        heartbeat(db, runner, *held)
        assert status(db, run) == "claimed", "a single heartbeat took it"
    accepted(db, run, "started")


def answer_on_its_way_is_waited_for(db: DbVerbs) -> None:
    """Do not poll again: the runner may still read the answer, however many heartbeats do not name the run."""
    runner = db.runner()
    db.park(runner)
    run = claimed(db, runner)
    for _ in range(4):
        heartbeat(db, runner)
    assert status(db, run) == "claimed", "it was taken from a runner that is about to read of it"
    accepted(db, run, "started")
