"""Scenarios of silent runners and our own outages: which silence counts against them, and when."""

from collections.abc import Callable

from models.runners.heartbeat import Touch, touch_runners
from tests.support.clocks import let_time_pass, simulate
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.reports import claimed, running

Beat = Callable[[int], None]


def heartbeats(db: DbVerbs, *runners: Runner, every: int = 60) -> Beat:
    """Let each runner send a heartbeat every ``every`` seconds, evenly spread over them."""
    apart = every // len(runners)

    def beat(moment: int) -> None:
        due = [one for number, one in enumerate(runners) if moment % every == number * apart]
        if due:
            db.do(touch_runners, [Touch(one.runner_id) for one in due])

    return beat


def dead_runner_among_slow_heartbeats_is_lost(db: DbVerbs) -> None:
    """Lose it after its own window, and note no outage, though no runner is heard for 30 s again and again."""
    slow = heartbeats(db, db.runner(), db.runner())
    run = running(db)
    simulate(db, 175, slow)
    assert db.run(run.run_id).status == "running"
    simulate(db, 10, slow)
    assert db.run(run.run_id).status == "failed", "the loss is put off"
    assert db.count("gaps") == 0


def unstarted_claim_among_slow_heartbeats_is_released(db: DbVerbs) -> None:
    """Release the claim by its start timeout alone, since its runner lives."""
    runners = [db.runner(), db.runner()]
    claim = claimed(db, runners[0])
    slow = heartbeats(db, *runners)
    simulate(db, 115, slow)
    assert db.run(claim.run_id).status == "claimed"
    simulate(db, 10, slow)
    assert db.run(claim.run_id).status == "pending", "the release is put off"


def outages_of_all_runners_delay_a_loss_once(db: DbVerbs) -> None:
    """Tell the other runner 60 s and let it send heartbeats every 100 s: all are overdue each time, and each time
    silence restarts.

    After twice its window (180 s) the dead one is lost all the same.
    """
    late = heartbeats(db, db.runner(), every=100)
    run = running(db)
    simulate(db, 350, late)
    assert db.run(run.run_id).status == "running", "silence that may be ours is held against it"
    assert db.count("gaps", "kind = 'runners'") == 3
    simulate(db, 20, late)
    assert db.run(run.run_id).status == "failed", "the loss is put off for ever"


def outages_one_after_another_are_not_counted(db: DbVerbs) -> None:
    """Count only the 5 s of every minute between two passes of expiry, until they are 360."""
    run = running(db)
    for _ in range(70):
        _outage(db)
    assert db.run(run.run_id).status == "running", "time that we were away is held against it"
    for _ in range(5):
        _outage(db)
    assert db.run(run.run_id).status == "failed", "the loss is put off for ever"


def _outage(db: DbVerbs) -> None:
    simulate(db, 10, lambda _: None)
    let_time_pass(db, 50)
