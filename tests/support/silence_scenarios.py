"""Runners that fall silent among others, and gaps of ours: which silence is held against them, and when."""

from collections.abc import Callable

from models.runners.heartbeat import Touch, touch_runners
from tests.support.clocks import let_time_pass, simulate
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.reports import claimed, running

Beat = Callable[[int], None]


def beating(db: DbVerbs, *runners: Runner, every: int = 60) -> Beat:
    """Each runner beats once in ``every`` seconds, evenly spread over them."""
    apart = every // len(runners)

    def beat(moment: int) -> None:
        due = [one for number, one in enumerate(runners) if moment % every == number * apart]
        if due:
            db.do(touch_runners, [Touch(one.runner_id) for one in due])

    return beat


def dead_runner_among_slow_beaters_is_lost(db: DbVerbs) -> None:
    """After its own window, and no gap is noted, though nobody is heard for 30 s again and again."""
    slow = beating(db, db.runner(), db.runner())
    run = running(db)
    simulate(db, 175, slow)
    assert db.run(run.run_id).status == "running"
    simulate(db, 10, slow)
    assert db.run(run.run_id).status == "failed", "the loss is put off"
    assert db.count("gaps") == 0


def unstarted_claim_among_slow_beaters_comes_back(db: DbVerbs) -> None:
    """Its runner lives: nothing but the start timeout takes the claim from it."""
    runners = [db.runner(), db.runner()]
    claim = claimed(db, runners[0])
    slow = beating(db, *runners)
    simulate(db, 115, slow)
    assert db.run(claim.run_id).status == "claimed"
    simulate(db, 10, slow)
    assert db.run(claim.run_id).status == "pending", "the release is put off"


def gaps_of_all_runners_put_a_loss_off_once(db: DbVerbs) -> None:
    """The other runner is told 60 s and beats every 100 s: all are overdue each time, and each time silence restarts.

    After twice its window (180 s) the dead one is lost all the same.
    """
    late = beating(db, db.runner(), every=100)
    run = running(db)
    simulate(db, 350, late)
    assert db.run(run.run_id).status == "running", "silence that may be ours is held against it"
    assert db.count("gaps", "kind = 'runners'") == 3
    simulate(db, 20, late)
    assert db.run(run.run_id).status == "failed", "the loss is put off for ever"


def outages_one_after_another_are_not_counted(db: DbVerbs) -> None:
    """Of every minute only the 5 s between two passes of expiry count, until they are 360."""
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
