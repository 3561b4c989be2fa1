"""Claims whose answer never reached their runner, and claims that only seem so: heartbeats and polls in any order."""

from models.runners.heartbeat import Touch, touch_runners
from models.state.runs import Run
from tests.support.clocks import pass_time, tick
from tests.support.reports import accepted, claimed, report, say
from tests.support.truth import Runner, Truth


def beat(truth: Truth, runner: Runner, *run_ids: str) -> None:
    """A heartbeat that names what the runner holds, some time after the last one."""
    pass_time(truth, "runners", "counted_beat_at", 10)
    truth.do(touch_runners, [Touch(runner.runner_id, run_ids)])


def status(truth: Truth, run: Run) -> str:
    """The run's status after a pass of expiry."""
    tick(truth)
    return str(truth.run(run.run_id).status)


def claim_that_never_arrived_is_released(truth: Truth) -> None:
    """The runner polls again, and two beats in a row after that do not name the run: the waiting poll gets it."""
    runner = truth.runner()
    run = claimed(truth, runner)
    poll = truth.park(runner)
    beat(truth, runner)
    assert status(truth, run) == "claimed"
    beat(truth, runner)
    assert status(truth, run) == "pending", "it waits for the start timeout"
    assert truth.dispatch() == {poll.poll_id: [run.run_id]}
    (late,) = say(truth, report(run, "started"))
    assert type(late).__name__ == "StaleClaim"


def claim_named_by_the_second_beat_is_kept(truth: Truth) -> None:
    """The first one had been on its way while the answer was."""
    runner = truth.runner()
    run = claimed(truth, runner)
    truth.park(runner)
    for held in ([], [run.run_id], [], [run.run_id]):
        beat(truth, runner, *held)
        assert status(truth, run) == "claimed", "a single beat took it"
    accepted(truth, run, "started")


def answer_on_its_way_is_waited_for(truth: Truth) -> None:
    """The runner has not polled again: it may yet read the answer, however many beats do not name the run."""
    runner = truth.runner()
    truth.park(runner)
    run = claimed(truth, runner)
    for _ in range(4):
        beat(truth, runner)
    assert status(truth, run) == "claimed", "it was taken from a runner that is about to read of it"
    accepted(truth, run, "started")
