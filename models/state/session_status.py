"""Status of a session and readiness of its next run: computed in this one place."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection

from models.schema.sql import sql
from models.state.holds import IS_HELD_OF_R
from models.state.sessions import SESSION_COLUMNS_OF_S, Session, as_session


class ProcessChange(StrEnum):
    KEEP = "keep"
    CLEAR = "clear"
    SET = "set"


@dataclass(frozen=True, slots=True)
class SessionChange:
    """Effect of a changed run, a bind or a stop on its session.

    ``outcome`` (idle, finished, failed, stopped) is what the session shows once nothing unfinished is left.
    ``unless_live`` withholds the outcome while the session has a live process: it then returns to idle. ``sign``: the
    session's process gave a sign of life with it; acts of clients and of the coordinator are none. ``live`` CLEAR with
    a registration ends that one's process only: another runner's lives on.
    """

    session_id: str
    outcome: str | None = None
    unless_live: bool = False
    live: ProcessChange = ProcessChange.KEEP
    runner_id: str | None = None
    registration: int | None = None
    resumed: bool = False
    parent_session_id: str | None = None
    sign: bool = False


@dataclass(frozen=True, slots=True)
class SessionUpdate:
    """Session after its change.

    ``changed``: its status differs, or it has been resumed; ``owed``: it is free to go on, and results of children wait
    for it; ``continues``: something unfinished of it is left.
    """

    session: Session
    changed: bool
    owed: bool
    continues: bool


# What keeps a pending run ``r`` from being ready, beside its delay and holds: a stop ``c`` of its session that is open,
# and an earlier run ``e`` of its session that is not finished.
IS_OPEN_STOP: Final = "c.session_id = r.session_id AND NOT c.superseded"
IS_EARLIER: Final = sql(
    "e.session_id = r.session_id AND e.session_seq < r.session_seq AND e.status IN $UNFINISHED"
).text

# seen: the session with the effect applied and its unfinished runs; readied: its first unfinished run, if it may be
# claimed now; the status follows from both. The caller holds the locks of the sessions and their unfinished runs.
_UPDATE_STATUS = sql(
    """
    WITH effect AS (
        SELECT e.* FROM unnest(
            CAST(:sessions AS text[]), CAST(:outcomes AS text[]), CAST(:unless_live AS boolean[]),
            CAST(:lives AS text[]), CAST(:runners AS text[]), CAST(:registrations AS bigint[]),
            CAST(:resumed AS boolean[]), CAST(:parents AS text[]), CAST(:signs AS boolean[])
        ) AS e(session_id, outcome, unless_live, live, runner_id, registration, resumed, parent_session_id, sign)
    ), seen AS (
        SELECT e.session_id, e.resumed, e.parent_session_id, e.sign, s.status AS former, s.bound_token,
            CASE WHEN e.live = 'set' THEN e.runner_id
                WHEN e.live = 'keep' OR e.registration <> s.registration THEN s.runner_id END AS runner_id,
            CASE WHEN e.live = 'set' THEN e.registration
                WHEN e.live = 'keep' OR e.registration <> s.registration THEN s.registration END AS registration,
            CASE WHEN e.outcome IS NULL OR (e.unless_live AND s.runner_id IS NOT NULL) THEN s.last_outcome
                 ELSE e.outcome END AS last_outcome,
            active.status AS active, active.claim_token AS active_token,
            EXISTS (SELECT 1 FROM stop_commands c WHERE c.session_id = e.session_id AND NOT c.superseded) AS stop_open,
            next.run_id AS next_run, next.status AS next_status, next.ready AS next_ready,
            next.not_before IS NULL OR next.not_before <= now() AS due
        FROM effect e
        JOIN sessions s ON s.session_id = e.session_id AND s.session_id = ANY(CAST(:sessions AS text[]))
        LEFT JOIN LATERAL (
            SELECT r.status, r.claim_token FROM runs r
            WHERE r.session_id = e.session_id AND r.status IN $IN_HAND
            LIMIT 1
        ) active ON true
        LEFT JOIN LATERAL (
            SELECT r.run_id, r.status, r.ready, r.not_before FROM runs r
            WHERE r.session_id = e.session_id AND r.status IN $UNFINISHED
            ORDER BY r.session_seq LIMIT 1
        ) next ON true
    ), readied AS (
        UPDATE runs r
        SET ready = true, match_deadline_at = now() + make_interval(secs => r.no_match_timeout_seconds)
        FROM seen
        WHERE r.run_id = seen.next_run AND r.run_id = ANY(ARRAY(SELECT next_run FROM seen))
          AND r.status = $PENDING AND NOT r.ready
          AND seen.due AND NOT seen.stop_open AND NOT $is_held
    ), computed AS (
        SELECT seen.*, CASE
            WHEN active = $RUNNING THEN $RUNNING
            WHEN active = $STOPPING OR stop_open THEN $STOPPING
            WHEN active = $CLAIMED AND bound_token = active_token THEN $RUNNING
            WHEN next_run IS NOT NULL THEN $PENDING
            WHEN runner_id IS NOT NULL THEN $IDLE
            WHEN last_outcome = $IDLE THEN $FINISHED
            ELSE coalesce(last_outcome, $STOPPED) END AS status
        FROM seen
    )
    UPDATE sessions s
    SET status = c.status, last_outcome = c.last_outcome, runner_id = c.runner_id, registration = c.registration,
        parent_session_id = coalesce(c.parent_session_id, s.parent_session_id),
        last_resumed_at = CASE WHEN c.resumed THEN now() ELSE s.last_resumed_at END,
        last_sign_at = CASE WHEN c.sign THEN clock_timestamp() ELSE s.last_sign_at END
    FROM computed c
    WHERE s.session_id = c.session_id AND s.session_id = ANY(CAST(:sessions AS text[]))
    RETURNING $session,
        c.former <> s.status OR c.resumed AS changed, c.next_run IS NOT NULL AS continues,
        CASE WHEN s.status IN $FREE THEN EXISTS (
            SELECT 1 FROM child_results w WHERE w.parent_session_id = s.session_id AND w.delivered_in IS NULL)
        ELSE false END AS owed
""",
    session=SESSION_COLUMNS_OF_S,
    is_held=IS_HELD_OF_R,
)


def update_session_status(conn: Connection, changes: Sequence[SessionChange]) -> dict[str, SessionUpdate]:
    """Apply the effects, one per session, recompute each status, and make the next run ready.

    The caller holds the sessions and all their unfinished runs locked. Return the sessions by id, in the order of the
    effects.
    """
    if not changes:
        return {}
    rows = conn.execute(
        _UPDATE_STATUS,
        {
            "sessions": [change.session_id for change in changes],
            "outcomes": [change.outcome for change in changes],
            "unless_live": [change.unless_live for change in changes],
            "lives": [change.live.value for change in changes],
            "runners": [change.runner_id for change in changes],
            "registrations": [change.registration for change in changes],
            "resumed": [change.resumed for change in changes],
            "parents": [change.parent_session_id for change in changes],
            "signs": [change.sign for change in changes],
        },
    )
    found = {row.session_id: row for row in rows}
    return {
        change.session_id: SessionUpdate(as_session(row), row.changed, row.owed, row.continues)
        for change in changes
        if (row := found.get(change.session_id)) is not None
    }
