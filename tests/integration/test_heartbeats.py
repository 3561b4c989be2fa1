"""Answers to heartbeats on a real database: which of the named runs no longer belong to the runner."""

from models.claims.delivery import Claim, release_claims
from models.runners.heartbeat import Touch, Touched, TouchResult, touch_runners
from models.runners.register import register_runners
from models.runners.registration import Registration
from tests.support.clocks import counts, fall_silent
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.reports import accepted, claimed, running, stop


def heartbeat(db: DbVerbs, runner: Runner, *run_ids: str) -> TouchResult:
    """Return the answer to a heartbeat that names these runs."""
    (heard,) = db.do(touch_runners, [Touch(runner.runner_id, run_ids)])
    return heard


def test_runs_in_hand_are_not_named_in_answer(db: DbVerbs) -> None:
    """Keep claimed, running and stopping runs with the runner until they end."""
    runner = db.runner()
    waiting, active, stopping = claimed(db, runner), running(db, runner), running(db, runner)
    stop(db, stopping.session_id)
    assert heartbeat(db, runner, waiting.run_id, active.run_id, stopping.run_id) == Touched()


def test_requeued_reassigned_and_ended_runs_are_named(db: DbVerbs) -> None:
    """Name unknown ids too; keep the runner's order and repetitions."""
    runner, other = db.runner(), db.runner()
    requeued, ended, held = claimed(db, runner), running(db, runner), running(db, runner)
    db.do(release_claims, [Claim(requeued.run_id, str(requeued.claim_token))])
    accepted(db, ended, "completed")
    assert heartbeat(db, runner, requeued.run_id, held.run_id, "run_x", ended.run_id) == Touched(
        (requeued.run_id, "run_x", ended.run_id)
    )
    (again,) = db.claim(other)
    assert again.run_id == requeued.run_id
    assert heartbeat(db, runner, requeued.run_id, held.run_id) == Touched((requeued.run_id,))
    assert heartbeat(db, other, requeued.run_id, held.run_id) == Touched((held.run_id,))


def test_runs_stopped_by_expiry_are_named(db: DbVerbs) -> None:
    """End the run by its stop deadline."""
    runner = db.runner()
    run = running(db, runner)
    stop(db, run.session_id)
    db.rows("UPDATE runs SET run_deadline_at = clock_timestamp() - interval '1 second'")
    counts(db)
    assert db.run(run.run_id).status == "stopped"
    assert heartbeat(db, runner, run.run_id) == Touched((run.run_id,))


def test_lost_runner_is_told_which_runs_were_taken(db: DbVerbs) -> None:
    """Make it online with its first heartbeat after the silence."""
    runner = db.runner()
    again, failed = running(db, runner, max_attempts=2), running(db, runner)
    fall_silent(db, runner, 181)
    counts(db)
    assert heartbeat(db, runner, again.run_id, failed.run_id) == Touched((again.run_id, failed.run_id))


def test_reconnected_process_with_another_offer_keeps_its_runs(db: DbVerbs) -> None:
    """Move the runs to the new number of its registration."""
    item = Registration("host", "/project", "profile", executor_type="autonomous", instance_id="one")
    db.do(register_runners, [item])
    number = db.one("SELECT registration FROM runners")
    runner = Runner(item.runner_id, number)
    run = running(db, runner)
    other = Registration("host", "/project", "profile", ("t",), executor_type="autonomous", instance_id="one")
    db.do(register_runners, [other])
    assert db.one("SELECT registration FROM runners") > number
    assert heartbeat(db, runner, run.run_id) == Touched()


def test_another_process_of_identity_does_not_have_former_ones_runs(db: DbVerbs) -> None:
    """Compare registrations, not runner ids."""
    runner = db.runner()
    run = running(db, runner)
    db.rows("UPDATE runners SET registration = nextval('runner_registration')")
    assert heartbeat(db, runner, run.run_id) == Touched((run.run_id,))


def test_heartbeats_of_one_batch_are_answered_separately(db: DbVerbs) -> None:
    """Mix heartbeats of many runners in one statement; one without `holding` names nothing."""
    runner, other = db.runner(), db.runner()
    own, foreign = running(db, runner), running(db, other)
    touches = [
        Touch(runner.runner_id, (own.run_id, foreign.run_id)),
        Touch(other.runner_id, (foreign.run_id,)),
        Touch(runner.runner_id),
        Touch(runner.runner_id, ("run_x", own.run_id)),
    ]
    assert db.do(touch_runners, touches) == [Touched((foreign.run_id,)), Touched(), Touched(), Touched(("run_x",))]


def test_heartbeat_is_answered_while_runners_row_is_locked(db: DbVerbs) -> None:
    """Skip the locked row, but name the runs that the runner lost."""
    runner = db.runner()
    run = running(db, runner)
    with db.engine.begin() as connection:
        connection.exec_driver_sql("SELECT 1 FROM runners FOR UPDATE")
        assert heartbeat(db, runner, run.run_id, "run_x") == Touched(("run_x",))
