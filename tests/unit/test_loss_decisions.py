"""Check what becomes of a run that ends or returns to pending without its runner's report."""

from dataclasses import replace

import pytest

from models.core.statuses import RunStatus
from models.state.endings import give_up_stop, idle_lost, idle_stopped, lose, lost_reason, release, time_out, unmatched
from models.state.session_status import ProcessChange
from tests.support.rows import run_row


def test_undelivered_claim_is_released_without_a_trace() -> None:
    """Count no attempt and exclude no registration."""
    move = release(run_row("claimed", delivered_at=None, failed_deliveries=9), sends_tokens=False)
    assert (move.to, move.failed_delivery, move.excluded_registration, move.change.live) == (
        RunStatus.PENDING,
        False,
        None,
        ProcessChange.KEEP,
    )


@pytest.mark.parametrize(("sends_tokens", "barred"), [(True, None), (False, 7)])
def test_delivered_claim_excludes_registration_without_tokens(*, sends_tokens: bool, barred: int | None) -> None:
    """Keep a report without a token unambiguous: it can mean one claim only."""
    move = release(run_row("claimed"), sends_tokens=sends_tokens)
    assert (move.to, move.failed_delivery, move.excluded_registration) == (RunStatus.PENDING, True, barred)


def test_claim_that_never_arrived_excludes_no_registration() -> None:
    """Two heartbeats did not name it, so no report of it can come. It counts as a delivery without a start."""
    move = release(run_row("claimed", missed_heartbeats=2), sends_tokens=False)
    assert (move.to, move.failed_delivery, move.excluded_registration) == (RunStatus.PENDING, True, None)


def test_tenth_delivered_claim_without_start_fails_run() -> None:
    assert release(run_row("claimed", failed_deliveries=8), sends_tokens=True).to is RunStatus.PENDING
    move = release(run_row("claimed", failed_deliveries=9), sends_tokens=True)
    assert (move.to, move.error, move.by_us) == (RunStatus.FAILED, "Claimed 10 times, never started", True)
    assert (move.change.outcome, move.change.unless_live) == ("failed", True)


def test_lost_claim_ends_live_process_and_released_claim_does_not() -> None:
    assert lose(run_row("claimed"), reason="gone", sends_tokens=True).change.live is ProcessChange.CLEAR


def test_lost_run_is_requeued_while_attempts_are_left() -> None:
    """Without attempts it fails with the reason."""
    again = lose(run_row("running", max_attempts=2), reason="gone", sends_tokens=False)
    assert (again.to, again.excluded_registration, again.error, again.change.live) == (
        RunStatus.PENDING,
        7,
        None,
        ProcessChange.CLEAR,
    )
    failed = lose(run_row("running", attempt=2, max_attempts=2), reason="gone", sends_tokens=False)
    assert (failed.to, failed.error, failed.by_us, failed.change.outcome) == (RunStatus.FAILED, "gone", True, "failed")


def test_stopping_run_is_never_requeued() -> None:
    for move in (
        lose(run_row("stopping", stop_cause="stop", max_attempts=5), reason="gone", sends_tokens=True),
        give_up_stop(run_row("stopping", stop_cause="stop", max_attempts=5), sends_tokens=True),
    ):
        assert (move.to, move.error, move.by_us, move.change.outcome) == (RunStatus.STOPPED, None, True, "stopped")


def test_timed_out_run_is_requeued_or_fails() -> None:
    """Name the limit in the reason."""
    run = run_row("stopping", stop_cause="timeout", run_timeout_seconds=30, max_attempts=2)
    assert give_up_stop(run, sends_tokens=True).to is RunStatus.PENDING
    run = replace(run, max_attempts=1)
    for move in (give_up_stop(run, sends_tokens=True), lose(run, reason="gone", sends_tokens=True)):
        assert (move.to, move.error) == (RunStatus.FAILED, "Run timed out after 30 s")


def test_run_past_its_limit_is_stopped_first() -> None:
    """Continue from its end report or from the stop deadline."""
    move = time_out(run_row("running"), stop_seconds=60)
    assert (move.to, move.stop_cause, move.stop_seconds, move.by_us) == (RunStatus.STOPPING, "timeout", 60, False)


def test_unmatched_run_fails_and_leaves_live_session_idle() -> None:
    move = unmatched(run_row("pending"), error="No matching runner: no runner is registered")
    assert (move.to, move.error) == (RunStatus.FAILED, "No matching runner: no runner is registered")
    assert (move.change.outcome, move.change.unless_live, move.change.live) == ("failed", True, ProcessChange.KEEP)


@pytest.mark.parametrize("status", ["pending", "completed", "failed", "stopped"])
def test_losing_a_run_without_holder_is_a_bug(status: str) -> None:
    with pytest.raises(ValueError, match="not in hand"):
        lose(run_row(status), reason="gone", sends_tokens=True)


def test_idle_session_ends_with_its_runner() -> None:
    """Finish it if the runner is lost, stop it if a stop was open."""
    assert (idle_lost("ses_1").outcome, idle_lost("ses_1").live) == ("finished", ProcessChange.CLEAR)
    assert (idle_stopped("ses_1").outcome, idle_stopped("ses_1").live) == ("stopped", ProcessChange.CLEAR)


def test_loss_reason_names_silence_in_seconds() -> None:
    assert lost_reason(180.4) == "Runner lost: no sign of life for 180 s"
