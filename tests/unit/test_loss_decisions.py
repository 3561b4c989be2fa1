"""What becomes of a run without its runner's word."""

import pytest

from models.core.statuses import RunStatus
from models.state.endings import give_up_stop, idle_lost, idle_stopped, lose, lost_reason, release, time_out, unmatched
from models.state.session_status import ProcessChange
from tests.support.rows import a_run


def test_an_undelivered_claim_goes_back_for_nothing() -> None:
    """Nobody has seen it: nothing is counted and nobody barred."""
    move = release(a_run("claimed", delivered_at=None, fruitless_claims=9), sends_tokens=False)
    assert (move.to, move.failed_delivery, move.excluded_registration, move.change.live) == (
        RunStatus.PENDING,
        False,
        None,
        ProcessChange.KEEP,
    )


@pytest.mark.parametrize(("sends_tokens", "barred"), [(True, None), (False, 7)])
def test_a_delivered_claim_bars_a_runner_without_tokens(*, sends_tokens: bool, barred: int | None) -> None:
    """So that a report without a token can only mean one claim."""
    move = release(a_run("claimed"), sends_tokens=sends_tokens)
    assert (move.to, move.failed_delivery, move.excluded_registration) == (RunStatus.PENDING, True, barred)


def test_claim_that_never_arrived_bars_nobody() -> None:
    """Two heartbeats did not name it: no report of it can come. It counts among those without a start."""
    move = release(a_run("claimed", unheld_beats=2), sends_tokens=False)
    assert (move.to, move.failed_delivery, move.excluded_registration) == (RunStatus.PENDING, True, None)


def test_the_tenth_delivered_claim_without_a_start_fails_the_run() -> None:
    """Nine are forgiven."""
    assert release(a_run("claimed", fruitless_claims=8), sends_tokens=True).to is RunStatus.PENDING
    move = release(a_run("claimed", fruitless_claims=9), sends_tokens=True)
    assert (move.to, move.error, move.by_us) == (RunStatus.FAILED, "Claimed 10 times, never started", True)
    assert (move.change.outcome, move.change.unless_live) == ("failed", True)


def test_a_lost_claim_takes_the_live_process_with_it() -> None:
    """A released one does not."""
    assert lose(a_run("claimed"), reason="gone", sends_tokens=True).change.live is ProcessChange.CLEAR


def test_a_lost_run_starts_again_while_attempts_are_left() -> None:
    """Then it fails with the reason."""
    again = lose(a_run("running", max_attempts=2), reason="gone", sends_tokens=False)
    assert (again.to, again.excluded_registration, again.error, again.change.live) == (
        RunStatus.PENDING,
        7,
        None,
        ProcessChange.CLEAR,
    )
    failed = lose(a_run("running", attempt=2, max_attempts=2), reason="gone", sends_tokens=False)
    assert (failed.to, failed.error, failed.by_us, failed.change.outcome) == (RunStatus.FAILED, "gone", True, "failed")


def test_a_stopping_run_is_never_requeued() -> None:
    """However many attempts are left."""
    for move in (
        lose(a_run("stopping", stop_cause="stop", max_attempts=5), reason="gone", sends_tokens=True),
        give_up_stop(a_run("stopping", stop_cause="stop", max_attempts=5), sends_tokens=True),
    ):
        assert (move.to, move.error, move.by_us, move.change.outcome) == (RunStatus.STOPPED, None, True, "stopped")


def test_a_run_that_its_time_limit_stops_starts_again_or_fails() -> None:
    """The limit is in the reason."""
    run = a_run("stopping", stop_cause="timeout", run_timeout_seconds=30, max_attempts=2)
    assert give_up_stop(run, sends_tokens=True).to is RunStatus.PENDING
    run.max_attempts = 1
    for move in (give_up_stop(run, sends_tokens=True), lose(run, reason="gone", sends_tokens=True)):
        assert (move.to, move.error) == (RunStatus.FAILED, "Run timed out after 30 s")


def test_a_run_past_its_limit_is_told_to_stop_first() -> None:
    """It goes on from its end report or the stop's deadline."""
    move = time_out(a_run("running"), stop_seconds=60)
    assert (move.to, move.stop_cause, move.stop_seconds, move.by_us) == (RunStatus.STOPPING, "timeout", 60, False)


def test_an_unmatched_run_fails_and_leaves_a_live_session_idle() -> None:
    """The process that waits is none the worse for it."""
    move = unmatched(a_run("pending"), error="No matching runner: no runner is registered")
    assert (move.to, move.error) == (RunStatus.FAILED, "No matching runner: no runner is registered")
    assert (move.change.outcome, move.change.unless_live, move.change.live) == ("failed", True, ProcessChange.KEEP)


@pytest.mark.parametrize("status", ["pending", "completed", "failed", "stopped"])
def test_what_nobody_holds_cannot_be_lost(status: str) -> None:
    """A caller that tries has a bug."""
    with pytest.raises(ValueError, match="nobody holds"):
        lose(a_run(status), reason="gone", sends_tokens=True)


def test_an_idle_process_ends_with_its_runner() -> None:
    """Finished when the runner is lost, stopped when it was told to stop."""
    assert (idle_lost("ses_1").outcome, idle_lost("ses_1").live) == ("finished", ProcessChange.CLEAR)
    assert (idle_stopped("ses_1").outcome, idle_stopped("ses_1").live) == ("stopped", ProcessChange.CLEAR)


def test_the_reason_of_a_loss_names_the_silence() -> None:
    """In whole seconds."""
    assert lost_reason(180.4) == "Runner lost: no sign of life for 180 s"
