"""Runners that fall silent among others, and gaps of ours: which silence is held against them, and when."""

from collections.abc import Callable

from models.runners.heartbeat import Touch, touch_runners
from tests.support.clocks import let_time_pass, live
from tests.support.reports import claimed, running
from tests.support.truth import Runner, Truth

Beat = Callable[[int], None]


def beating(truth: Truth, *runners: Runner, every: int = 60) -> Beat:
    """Each runner beats once in ``every`` seconds, evenly spread over them."""
    apart = every // len(runners)

    def beat(moment: int) -> None:
        due = [one for number, one in enumerate(runners) if moment % every == number * apart]
        if due:
            truth.do(touch_runners, [Touch(one.runner_id) for one in due])

    return beat


def dead_runner_among_slow_beaters_is_lost(truth: Truth) -> None:
    """After its own window, and no gap is noted, though nobody is heard for 30 s again and again."""
    slow = beating(truth, truth.runner(), truth.runner())
    run = running(truth)
    live(truth, 175, slow)
    assert truth.run(run.run_id).status == "running"
    live(truth, 10, slow)
    assert truth.run(run.run_id).status == "failed", "the loss is put off"
    assert truth.count("gaps") == 0


def unstarted_claim_among_slow_beaters_comes_back(truth: Truth) -> None:
    """Its runner lives: nothing but the start timeout takes the claim from it."""
    runners = [truth.runner(), truth.runner()]
    claim = claimed(truth, runners[0])
    slow = beating(truth, *runners)
    live(truth, 115, slow)
    assert truth.run(claim.run_id).status == "claimed"
    live(truth, 10, slow)
    assert truth.run(claim.run_id).status == "pending", "the release is put off"


def gaps_of_all_runners_put_a_loss_off_once(truth: Truth) -> None:
    """The other runner is told 60 s and beats every 100 s: all are overdue each time, and each time silence restarts.

    After twice its window (180 s) the dead one is lost all the same.
    """
    late = beating(truth, truth.runner(), every=100)
    run = running(truth)
    live(truth, 350, late)
    assert truth.run(run.run_id).status == "running", "silence that may be ours is held against it"
    assert truth.count("gaps", "kind = 'runners'") == 3
    live(truth, 20, late)
    assert truth.run(run.run_id).status == "failed", "the loss is put off for ever"


def outages_one_after_another_are_not_counted(truth: Truth) -> None:
    """Of every minute only the 5 s between two passes of expiry count, until they are 360."""
    run = running(truth)
    for _ in range(70):
        _outage(truth)
    assert truth.run(run.run_id).status == "running", "time that we were away is held against it"
    for _ in range(5):
        _outage(truth)
    assert truth.run(run.run_id).status == "failed", "the loss is put off for ever"


def _outage(truth: Truth) -> None:
    live(truth, 10, lambda _: None)
    let_time_pass(truth, 50)
