"""Answers to heartbeats on a real database: which of the runs that a runner names are not its own any more."""

from models.claims.delivery import Claim, release_claims
from models.runners.heartbeat import Heard, Touch, TouchResult, touch_runners
from models.runners.register import Registration, register_runners
from tests.support.clocks import counts, fall_silent
from tests.support.reports import accepted, claimed, running, stop
from tests.support.truth import Runner, Truth


def beat(truth: Truth, runner: Runner, *run_ids: str) -> TouchResult:
    """What a heartbeat that names these runs is answered."""
    (heard,) = truth.do(touch_runners, [Touch(runner.runner_id, run_ids)])
    return heard


def test_runs_in_hand_are_not_named(truth: Truth) -> None:
    """Claimed, running and stopping ones are the runner's until they end."""
    runner = truth.runner()
    waiting, active, stopping = claimed(truth, runner), running(truth, runner), running(truth, runner)
    stop(truth, stopping.session_id)
    assert beat(truth, runner, waiting.run_id, active.run_id, stopping.run_id) == Heard()


def test_requeued_reassigned_and_ended_runs_are_named(truth: Truth) -> None:
    """Also ids that belong to no run; in the order in which the runner named them, each as often as it did."""
    runner, other = truth.runner(), truth.runner()
    requeued, ended, mine = claimed(truth, runner), running(truth, runner), running(truth, runner)
    truth.do(release_claims, [Claim(requeued.run_id, str(requeued.claim_token))])
    accepted(truth, ended, "completed")
    assert beat(truth, runner, requeued.run_id, mine.run_id, "run_x", ended.run_id) == Heard(
        (requeued.run_id, "run_x", ended.run_id)
    )
    (again,) = truth.claim(other)
    assert again.run_id == requeued.run_id
    assert beat(truth, runner, requeued.run_id, mine.run_id) == Heard((requeued.run_id,))
    assert beat(truth, other, requeued.run_id, mine.run_id) == Heard((mine.run_id,))


def test_runs_that_we_stopped_are_named(truth: Truth) -> None:
    """A stop that nobody answered in time ends the run here, and its runner hears of it."""
    runner = truth.runner()
    run = running(truth, runner)
    stop(truth, run.session_id)
    truth.rows("UPDATE runs SET run_deadline_at = clock_timestamp() - interval '1 second'")
    counts(truth)
    assert truth.run(run.run_id).status == "stopped"
    assert beat(truth, runner, run.run_id) == Heard((run.run_id,))


def test_lost_runner_hears_which_runs_were_taken(truth: Truth) -> None:
    """Its first beat after the silence makes it online again and names what it has to end."""
    runner = truth.runner()
    again, failed = running(truth, runner, max_attempts=2), running(truth, runner)
    fall_silent(truth, runner, 181)
    counts(truth)
    assert beat(truth, runner, again.run_id, failed.run_id) == Heard((again.run_id, failed.run_id))


def test_reconnected_process_with_another_offer_keeps_its_runs(truth: Truth) -> None:
    """Its registration has another number then, and so have its runs."""
    item = Registration("host", "/project", "profile", executor_type="autonomous", instance_id="one")
    truth.do(register_runners, [item])
    number = truth.one("SELECT registration FROM runners")
    runner = Runner(item.runner_id, number)
    run = running(truth, runner)
    other = Registration("host", "/project", "profile", ("t",), executor_type="autonomous", instance_id="one")
    truth.do(register_runners, [other])
    assert truth.one("SELECT registration FROM runners") > number
    assert beat(truth, runner, run.run_id) == Heard()


def test_another_process_of_the_identity_does_not_have_the_former_ones_runs(truth: Truth) -> None:
    """The registration counts, not the runner's id."""
    runner = truth.runner()
    run = running(truth, runner)
    truth.rows("UPDATE runners SET registration = nextval('runner_registration')")
    assert beat(truth, runner, run.run_id) == Heard((run.run_id,))


def test_several_beats_of_one_batch_are_answered_each_for_what_it_named(truth: Truth) -> None:
    """Beats of many runners ride in one statement; a plain sign of life among them names nothing."""
    runner, other = truth.runner(), truth.runner()
    mine, theirs = running(truth, runner), running(truth, other)
    touches = [
        Touch(runner.runner_id, (mine.run_id, theirs.run_id)),
        Touch(other.runner_id, (theirs.run_id,)),
        Touch(runner.runner_id),
        Touch(runner.runner_id, ("run_x", mine.run_id)),
    ]
    assert truth.do(touch_runners, touches) == [Heard((theirs.run_id,)), Heard(), Heard(), Heard(("run_x",))]


def test_beat_is_answered_while_the_runners_row_is_locked(truth: Truth) -> None:
    """A locked row is passed over, but what the runner lost is said all the same."""
    runner = truth.runner()
    run = running(truth, runner)
    with truth.engine.begin() as connection:
        connection.exec_driver_sql("SELECT 1 FROM runners FOR UPDATE")
        assert beat(truth, runner, run.run_id, "run_x") == Heard(("run_x",))
