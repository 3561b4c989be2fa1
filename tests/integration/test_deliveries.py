"""From a claim to a runner's hands: confirmed before it is handed out, released when it never was."""

from models.claims.delivery import Claim, confirm_deliveries, release_claims
from models.core.errors import StaleClaim
from models.core.limits import DEFAULT_LIMITS
from models.state.runs import Run
from tests.support.truth import Truth


def as_claim(truth: Truth, run_id: str) -> Claim:
    return Claim(run_id, str(truth.run(run_id).claim_token))


def dispatched(truth: Truth) -> str:
    """A run that dispatch gave to a poll and that nobody confirmed."""
    truth.park(truth.runner())
    run_id = truth.start().run_id
    truth.dispatch()
    return run_id


def test_a_confirmed_delivery_gets_the_run_and_time_to_start(truth: Truth) -> None:
    """Repeated it is the same; the time of the first delivery stays."""
    run_id = dispatched(truth)
    claim = as_claim(truth, run_id)
    (run,) = truth.do(confirm_deliveries, [claim])
    row = truth.run(run_id)
    assert isinstance(run, Run)
    assert run.claim_token == claim.claim_token
    assert round((row.claim_deadline_at - row.delivered_at).total_seconds()) >= DEFAULT_LIMITS.start_timeout

    assert truth.do(confirm_deliveries, [claim, claim]) == [run, run]
    assert truth.run(run_id).delivered_at == row.delivered_at


def test_a_delivery_of_a_claim_that_has_ended_is_refused(truth: Truth) -> None:
    """A frozen web may hold an old message: it must not start a second process."""
    run_id = dispatched(truth)
    old = as_claim(truth, run_id)
    assert truth.do(release_claims, [old]) == [True]
    assert truth.do(confirm_deliveries, [old]) == [StaleClaim(run_id, "pending")]

    (again,) = truth.claim(truth.runner())
    new = Claim(run_id, again.claim_token or "")
    assert truth.do(confirm_deliveries, [old, new, Claim("run_no", "x")]) == [
        StaleClaim(run_id, "claimed"),
        again,
        StaleClaim("run_no", "not_existent"),
    ]


def test_a_released_claim_costs_nothing(truth: Truth) -> None:
    """The run is pending as if it had never been claimed, and may go to the same runner again."""
    runner = truth.runner()
    run_id = truth.start().run_id
    (run,) = truth.claim(runner)
    claim = Claim(run_id, run.claim_token or "")
    assert truth.do(release_claims, [claim, claim]) == [True, True]
    row = truth.run(run_id)

    assert (row.status, row.ready, row.attempt, row.fruitless_claims, row.not_for) == ("pending", True, 0, 0, None)
    assert (row.runner_id, row.claim_token, row.claim_poll_id, row.claimed_at, row.delivered_at) == (None,) * 5
    assert row.match_deadline_at is not None
    assert [run.run_id for run in truth.claim(runner)] == [run_id]


def test_a_stale_release_changes_nothing(truth: Truth) -> None:
    """The run belongs to another claim by now, whichever comes first in the batch."""
    run_id = dispatched(truth)
    old = as_claim(truth, run_id)
    truth.do(release_claims, [old])
    truth.claim(truth.runner())
    new, before = as_claim(truth, run_id), truth.run(run_id)
    assert truth.do(release_claims, [old, Claim("run_no", "x")]) == [False, False]
    assert truth.run(run_id) == before

    assert truth.do(release_claims, [new, old, new]) == [True, False, True]
    assert truth.run(run_id).status == "pending"


def test_a_run_that_was_started_is_not_released(truth: Truth) -> None:
    """Its runner has it; a late release of the web must not take it away."""
    run_id = truth.start().run_id
    (run,) = truth.claim(truth.runner())
    truth.rows("UPDATE runs SET status = 'running', started_at = now()")

    assert truth.do(release_claims, [Claim(run_id, run.claim_token or "")]) == [False]
    assert truth.run(run_id).status == "running"
