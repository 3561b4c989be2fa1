"""Delivery of claims: confirmed before the answer is sent, released when it never was."""

from models.claims.delivery import Claim, confirm_deliveries, release_claims
from models.core.errors import StaleClaim
from models.core.limits import DEFAULT_LIMITS
from models.state.runs import Run
from tests.support.db_verbs import DbVerbs


def as_claim(db: DbVerbs, run_id: str) -> Claim:
    return Claim(run_id, str(db.run(run_id).claim_token))


def dispatched(db: DbVerbs) -> str:
    """Return a run that dispatch assigned to a poll, not confirmed yet."""
    db.park(db.runner())
    run_id = db.start().run_id
    db.dispatch()
    return run_id


def test_confirmed_delivery_returns_run_and_start_deadline(db: DbVerbs) -> None:
    """Confirm twice: the answer and the time of the first delivery stay."""
    run_id = dispatched(db)
    claim = as_claim(db, run_id)
    (run,) = db.do(confirm_deliveries, [claim])
    row = db.run(run_id)
    assert isinstance(run, Run)
    assert run.claim_token == claim.claim_token
    assert round((row.claim_deadline_at - row.delivered_at).total_seconds()) >= DEFAULT_LIMITS.start_timeout

    assert db.do(confirm_deliveries, [claim, claim]) == [run, run]
    assert db.run(run_id).delivered_at == row.delivered_at


def test_delivery_of_ended_claim_is_refused(db: DbVerbs) -> None:
    """Confirm from an old message of a frozen web process: it must not start a second process."""
    run_id = dispatched(db)
    old = as_claim(db, run_id)
    assert db.do(release_claims, [old]) == [True]
    assert db.do(confirm_deliveries, [old]) == [StaleClaim(run_id, "pending")]

    (again,) = db.claim(db.runner())
    new = Claim(run_id, again.claim_token or "")
    assert db.do(confirm_deliveries, [old, new, Claim("run_no", "x")]) == [
        StaleClaim(run_id, "claimed"),
        again,
        StaleClaim("run_no", "not_existent"),
    ]


def test_released_claim_leaves_run_as_if_unclaimed(db: DbVerbs) -> None:
    """Allow the same runner to claim it again."""
    runner = db.runner()
    run_id = db.start().run_id
    (run,) = db.claim(runner)
    claim = Claim(run_id, run.claim_token or "")
    assert db.do(release_claims, [claim, claim]) == [True, True]
    row = db.run(run_id)

    assert (row.status, row.ready, row.attempt, row.fruitless_claims, row.not_for) == ("pending", True, 0, 0, None)
    assert (row.runner_id, row.claim_token, row.claim_poll_id, row.claimed_at, row.delivered_at) == (None,) * 5
    assert row.match_deadline_at is not None
    assert [run.run_id for run in db.claim(runner)] == [run_id]


def test_stale_release_changes_nothing(db: DbVerbs) -> None:
    """Leave the run to its new claim, whatever the order in the batch."""
    run_id = dispatched(db)
    old = as_claim(db, run_id)
    db.do(release_claims, [old])
    db.claim(db.runner())
    new, before = as_claim(db, run_id), db.run(run_id)
    assert db.do(release_claims, [old, Claim("run_no", "x")]) == [False, False]
    assert db.run(run_id) == before

    assert db.do(release_claims, [new, old, new]) == [True, False, True]
    assert db.run(run_id).status == "pending"


def test_started_run_is_not_released(db: DbVerbs) -> None:
    """Ignore a late release by the web: its runner has the run."""
    run_id = db.start().run_id
    (run,) = db.claim(db.runner())
    db.rows("UPDATE runs SET status = 'running', started_at = now()")

    assert db.do(release_claims, [Claim(run_id, run.claim_token or "")]) == [False]
    assert db.run(run_id).status == "running"
