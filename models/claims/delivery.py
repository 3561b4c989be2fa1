from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from models.core.errors import StaleClaim
from models.core.facts import DELIVERED, note
from models.core.limits import DEFAULT_LIMITS, Limits
from models.core.statuses import Cause, RunStatus
from models.schema.sql import sql
from models.state.endings import NOT_RECEIVED
from models.state.locks import lock_runs
from models.state.runs import BLUEPRINT_OF_R, RUN_COLUMNS, RUN_COLUMNS_OF_R, Run, as_run, read_runs
from models.state.session_status import SessionChange
from models.state.transitions import Move, move_runs


@dataclass(frozen=True, slots=True)
class Claim:
    run_id: str
    claim_token: str


# Check the claim once more before delivery: a frozen process may hold a message about a claim that has ended.
_CONFIRM = sql(
    """
    UPDATE runs r
    SET delivered_at = coalesce(r.delivered_at, clock_timestamp()),
        claim_deadline_at = clock_timestamp() + make_interval(secs => :start_timeout)
    FROM (SELECT r.run_id, c.claim_token
          FROM unnest(CAST(:run_ids AS text[]), CAST(:tokens AS text[])) AS c(run_id, claim_token)
          JOIN runs r ON r.run_id = c.run_id AND r.run_id = ANY(CAST(:run_ids AS text[]))
          WHERE r.claim_token = c.claim_token AND r.status = $CLAIMED
          ORDER BY r.run_id FOR NO KEY UPDATE OF r) locked
    WHERE r.run_id = locked.run_id AND r.run_id = ANY(CAST(:run_ids AS text[]))
      AND r.claim_token = locked.claim_token AND r.status = $CLAIMED
    RETURNING $run, CAST(extract(epoch FROM r.delivered_at - r.claimed_at) AS float) AS delivered_after, $blueprint
    """,
    blueprint=BLUEPRINT_OF_R,
    run=RUN_COLUMNS_OF_R,
)
_CONFIRM_RUNS = _CONFIRM.columns(*RUN_COLUMNS)

_OF_POLLS = sql("""
    SELECT claim_poll_id, run_id, claim_token FROM runs
    WHERE claim_poll_id = ANY(CAST(:polls AS text[])) AND status = $CLAIMED ORDER BY run_id
""")


def confirm_deliveries(
    conn: Connection,
    items: Sequence[Claim],
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> list[Run | StaleClaim]:
    """Mark the claims delivered and return their runs; StaleClaim for one that has ended: do not deliver it.

    From here on the run waits for ``started`` up to ``start_timeout``. Safe to repeat.
    """
    rows = conn.execute(
        _CONFIRM_RUNS,
        {
            "run_ids": [item.run_id for item in items],
            "tokens": [item.claim_token for item in items],
            "start_timeout": limits.start_timeout,
        },
    )
    confirmed = {}
    for row in rows:
        confirmed[row.run_id] = replace(as_run(row), blueprint=row.blueprint)
        note(conn, DELIVERED, value=row.delivered_after)
    ended = [item for item in items if not _is_of(item, confirmed.get(item.run_id))]
    now = read_runs(conn, sorted({item.run_id for item in ended}))
    stale = {
        item: StaleClaim(item.run_id, now[item.run_id].status if item.run_id in now else "not_existent")
        for item in ended
    }
    return [stale.get(item) or confirmed[item.run_id] for item in items]


def _is_of(claim: Claim, run: Run | None) -> bool:
    return run is not None and run.claim_token == claim.claim_token


def confirm_polls(
    conn: Connection,
    poll_ids: Sequence[str],
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> dict[str, list[Run]]:
    """Return the runs that are claimed for these polls, marked delivered, by poll id."""
    rows = conn.execute(_OF_POLLS, {"polls": list(poll_ids)}).all()
    if not rows:
        return {}
    found: dict[str, list[Run]] = {}
    claims = [Claim(row.run_id, row.claim_token) for row in rows]
    for row, run in zip(rows, confirm_deliveries(conn, claims, limits=limits), strict=True):
        if isinstance(run, Run):
            found.setdefault(row.claim_poll_id, []).append(run)
    return found


def release_polls(conn: Connection, poll_ids: Sequence[str]) -> None:
    rows = conn.execute(_OF_POLLS, {"polls": list(poll_ids)}).all()
    if rows:
        release_claims(conn, [Claim(row.run_id, row.claim_token) for row in rows])


def release_claims(conn: Connection, items: Sequence[Claim]) -> list[bool]:
    """Release claims that never reached their runner (hang-up before the first byte); True where it was done.

    Only for what was certainly not received: it costs the run no attempt and excludes no registration from it.
    """
    locked = lock_runs(conn, [item.run_id for item in items])
    moves: dict[str, Move] = {}
    for item in items:
        run = locked.runs.get(item.run_id)
        if run is not None and run.status == RunStatus.CLAIMED and run.claim_token == item.claim_token:
            change = SessionChange(run.session_id)
            moves[item.run_id] = Move(run, RunStatus.PENDING, change, cause=Cause.CLAIM, reason=NOT_RECEIVED)
    moved = move_runs(conn, list(moves.values())).runs
    return [item.run_id in moved and moves[item.run_id].run.claim_token == item.claim_token for item in items]
