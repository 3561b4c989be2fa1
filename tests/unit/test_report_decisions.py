"""Check what a report does to a run for every status, outcome and kind of token."""

from typing import Any

import pytest

from models.core.errors import InvalidTransition, StaleClaim
from models.core.statuses import TERMINAL, TRANSITIONS, Outcome, RunStatus
from models.runs.report import Reported, closes_stop, decide
from models.runs.reports import Report
from models.state.session_status import ProcessChange
from models.state.transitions import Move
from tests.support.rows import RUNNER, TOKEN, run_row

FORMER = {
    "last_ended_token": "token-of-an-earlier-claim",
    "last_ended_runner": "lnch_former",
    "last_ended_outcome": "failed",
}
BY_TIMEOUT = {
    "error": "Run timed out after 5 s",
    "last_ended_token": TOKEN,
    "last_ended_runner": RUNNER,
    "last_ended_outcome": "stopped",
}

STATES: dict[str, Any] = {
    "pending": run_row("pending"),
    "claimed": run_row("claimed"),
    "running": run_row("running"),
    "stopping": run_row("stopping", stop_cause="stop"),
    "stopping, never started": run_row("stopping", stop_cause="stop", started_at=None, attempt=0),
    "stopping, timed out, attempts left": run_row(
        "stopping", stop_cause="timeout", max_attempts=2, run_timeout_seconds=5
    ),
    "stopping, timed out, none left": run_row("stopping", stop_cause="timeout", run_timeout_seconds=5),
    "completed": run_row("completed"),
    "failed": run_row("failed"),
    "stopped": run_row("stopped"),
    "failed by us": run_row("failed", ended_by_us=True),
    "stopped by us": run_row("stopped", ended_by_us=True),
    "failed, timed out, reported stopped": run_row("failed", **BY_TIMEOUT),
}

# Reports of the current holder: started, completed, failed, stopped. "+" counts the start, "=" accepts without a
# change.
EXPECTED = {
    "pending": ("stale", "stale", "stale", "stale"),
    "claimed": ("running+", "completed+", "failed+", "stopped+"),
    "running": ("=", "completed", "failed", "stopped"),
    "stopping": ("=", "completed", "failed", "stopped"),
    "stopping, never started": ("=", "completed+", "failed+", "stopped+"),
    "stopping, timed out, attempts left": ("=", "pending", "pending", "pending"),
    "stopping, timed out, none left": ("=", "failed", "failed", "failed"),
    "completed": ("=", "=", "invalid", "invalid"),
    "failed": ("=", "invalid", "=", "invalid"),
    "stopped": ("=", "invalid", "invalid", "="),
    "failed by us": ("invalid", "=", "=", "="),
    "stopped by us": ("invalid", "=", "=", "="),
    "failed, timed out, reported stopped": ("=", "invalid", "invalid", "="),
}


def shown(decision: object) -> str:
    """Return a decision as one word."""
    match decision:
        case Move():
            return decision.to.value + ("+" if decision.starts else "")
        case Reported():
            assert not decision.changed
            return "="
        case StaleClaim():
            return "stale"
        case InvalidTransition():
            return "invalid"
    raise AssertionError(decision)


def say(outcome: Outcome, token: str | None = TOKEN, runner_id: str = RUNNER, **values: Any) -> Report:
    return Report("run_1", runner_id, outcome, token, **values)


CASES = [
    (state, outcome, word) for state, words in EXPECTED.items() for outcome, word in zip(Outcome, words, strict=True)
]


@pytest.mark.parametrize(("state", "outcome", "expected"), CASES)
def test_holder_moves_run_as_the_table_says(state: str, outcome: Outcome, expected: str) -> None:
    """Try with the claim's token and with none."""
    assert shown(decide(STATES[state], say(outcome), sends_tokens=True)) == expected
    assert shown(decide(STATES[state], say(outcome, None), sends_tokens=False)) == expected


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("state", list(STATES))
def test_only_the_holder_moves_a_run(state: str, outcome: Outcome) -> None:
    """Refuse another token of the same runner, and another runner with the right token or with none."""
    for report in (
        say(outcome, "token-of-an-earlier-claim"),
        say(outcome, TOKEN, "lnch_other"),
        say(outcome, None, "lnch_other"),
    ):
        assert shown(decide(STATES[state], report, sends_tokens=True)) == "stale"


@pytest.mark.parametrize("outcome", list(Outcome))
def test_undelivered_claim_is_reported_only_with_its_token(outcome: Outcome) -> None:
    """Without a token the report is about an earlier claim of the same runner."""
    run = run_row("claimed", delivered_at=None)
    assert shown(decide(run, say(outcome, None), sends_tokens=False)) == "stale"
    assert shown(decide(run, say(outcome), sends_tokens=True)).endswith("+")


@pytest.mark.parametrize("status", ["pending", "claimed", "running", "stopping", "completed", "failed", "stopped"])
def test_repeated_report_that_requeued_the_run_is_accepted(status: str) -> None:
    """Accept it whatever happened since; refuse another outcome than the one that took effect."""
    run = run_row(status, **FORMER)
    for token in ("token-of-an-earlier-claim", None):
        assert shown(decide(run, say(Outcome.FAILED, token, "lnch_former"), sends_tokens=True)) == "="
        assert shown(decide(run, say(Outcome.STARTED, token, "lnch_former"), sends_tokens=True)) == "="
        assert shown(decide(run, say(Outcome.STOPPED, token, "lnch_former"), sends_tokens=True)) == "invalid"
    assert shown(decide(run, say(Outcome.FAILED, "made-up", "lnch_former"), sends_tokens=True)) == "stale"


def test_every_move_of_report_is_in_transition_table() -> None:
    """No report leaves a terminal status."""
    for run in STATES.values():
        for outcome in Outcome:
            decision = decide(run, say(outcome), sends_tokens=True)
            if isinstance(decision, Move):
                assert decision.to in TRANSITIONS[RunStatus(run.status)]
                assert run.status not in TERMINAL


def test_timed_out_run_remembers_the_report_that_requeued_it() -> None:
    """Exclude a runner that never sent a token: its late reports could mean either claim."""
    run = STATES["stopping, timed out, attempts left"]
    silent = decide(run, say(Outcome.STOPPED, None), sends_tokens=False)
    assert isinstance(silent, Move)
    assert (silent.remember, silent.excluded_registration, silent.error) == ("stopped", 7, None)
    with_token = decide(run, say(Outcome.STOPPED), sends_tokens=False)
    assert isinstance(with_token, Move)
    assert with_token.excluded_registration is None


def test_timed_out_run_without_attempts_fails_with_reason() -> None:
    """Ignore the runner's own error for an end that we caused."""
    decision = decide(STATES["stopping, timed out, none left"], say(Outcome.FAILED, error="killed"), sends_tokens=True)
    assert isinstance(decision, Move)
    assert (decision.error, decision.remember, decision.by_us) == ("Run timed out after 5 s", "failed", False)


@pytest.mark.parametrize(
    ("outcome", "session_status", "left", "live"),
    [
        (Outcome.STARTED, None, None, ProcessChange.SET),
        (Outcome.COMPLETED, None, "finished", ProcessChange.CLEAR),
        (Outcome.COMPLETED, "finished", "finished", ProcessChange.CLEAR),
        (Outcome.COMPLETED, "idle", "idle", ProcessChange.SET),
        (Outcome.FAILED, None, "failed", ProcessChange.CLEAR),
        (Outcome.STOPPED, None, "stopped", ProcessChange.CLEAR),
    ],
)
def test_report_decides_session_outcome_and_live_process(
    outcome: Outcome, session_status: str | None, left: str | None, live: ProcessChange
) -> None:
    """Set the outcome to show once nothing waits, and whether a process lives on."""
    move = decide(run_row("claimed"), say(outcome, session_status=session_status), sends_tokens=True)
    assert isinstance(move, Move)
    assert (move.change.outcome, move.change.live) == (left, live)
    assert (move.change.runner_id, move.change.registration) == (
        (RUNNER, 7) if live is ProcessChange.SET else (None, None)
    )


def test_started_resume_moves_session_below_runs_parent() -> None:
    """Move it whether the start or only the end was reported; a started session run keeps its parent."""
    run = run_row("claimed", type="resume_session", parent_session_id="ses_parent")
    for outcome in Outcome:
        move = decide(run, say(outcome), sends_tokens=True)
        assert isinstance(move, Move)
        assert (move.change.resumed, move.change.parent_session_id) == (True, "ses_parent")
    start = decide(run_row("claimed", parent_session_id="ses_parent"), say(Outcome.STARTED), sends_tokens=True)
    assert isinstance(start, Move)
    assert (start.change.resumed, start.change.parent_session_id) == (False, None)


class Stop:
    """Open stop as it is read from Postgres."""

    def __init__(self, run_id: str | None, runner_id: str = RUNNER) -> None:
        self.run_id = run_id
        self.runner_id = runner_id


@pytest.mark.parametrize(
    ("stop", "state", "report", "closes"),
    [
        (Stop("run_1"), "stopping", say(Outcome.STOPPED), True),
        (Stop("run_1"), "stopping", say(Outcome.COMPLETED), True),
        (Stop("run_1"), "stopping", say(Outcome.STOPPED, "stale"), True),
        (Stop(None), "completed", say(Outcome.STOPPED), True),
        (Stop("run_1"), "stopping", say(Outcome.STARTED), False),
        (Stop("run_2"), "completed", say(Outcome.COMPLETED), False),
        (Stop("run_1", "lnch_other"), "stopping", say(Outcome.STOPPED), False),
        (Stop("run_1"), "stopping", say(Outcome.COMPLETED, session_status="idle"), False),
        (Stop("run_1"), "stopping, timed out, none left", say(Outcome.COMPLETED, session_status="idle"), True),
        (None, "running", say(Outcome.STOPPED), False),
    ],
)
def test_stop_is_closed_by_end_of_its_target(stop: Any, state: str, report: Report, *, closes: bool) -> None:
    """Close it even by a refused report; not by a turn that leaves its process alive, unless only the turn
    was to stop.
    """
    assert closes_stop(stop, STATES[state], report) is closes
