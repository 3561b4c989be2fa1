"""Stops of superseded processes: idle ones whose session continues at another runner.

A session lives in one process. A resume may go to another runner than the one that keeps its process idle: by a
hostname of its own, without affinity, or because no process ever said where it lives. The row of ``stop_commands`` that
tells the former runner is ``superseded``: the session is not stopping by it, and its runs do not wait for it.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from models.core.limits import Limits
from models.state.locks import LockedRows
from models.state.transitions import Move

# Skip a runner that is gone: it has no process to end. Turn a stop that is open for that process into this one.
_OPEN = text("""
    INSERT INTO stop_commands AS c (runner_id, registration, session_id, run_id, deadline_at, superseded)
    SELECT o.runner_id, o.registration, o.session_id, NULL,
        clock_timestamp() + make_interval(secs => greatest(CAST(:stop_timeout AS float), 3 * n.told_interval)), true
    FROM unnest(CAST(:runners AS text[]), CAST(:registrations AS bigint[]), CAST(:sessions AS text[]))
        AS o(runner_id, registration, session_id)
    JOIN runners n ON n.runner_id = o.runner_id AND n.registration = o.registration
        AND n.left_at IS NULL AND n.lost_at IS NULL
    ORDER BY o.session_id
    ON CONFLICT (session_id) DO UPDATE SET superseded = true WHERE c.registration = excluded.registration
    RETURNING session_id, runner_id
""")

_CLOSE = text("""
    DELETE FROM stop_commands c
    USING unnest(CAST(:runners AS text[]), CAST(:sessions AS text[])) AS d(runner_id, session_id)
    WHERE c.session_id = d.session_id AND c.runner_id = d.runner_id AND c.superseded
""")

# Delete overdue stops, and those whose runner is gone or another process by now.
DROP_SUPERSEDED = text("""
    DELETE FROM stop_commands WHERE stop_id IN (
        SELECT c.stop_id FROM stop_commands c LEFT JOIN runners n ON n.runner_id = c.runner_id
        WHERE c.superseded
          AND (c.deadline_at <= CAST(:now AS timestamptz) OR n.runner_id IS NULL OR n.lost_at IS NOT NULL
               OR n.left_at IS NOT NULL OR n.registration <> c.registration)
        ORDER BY c.stop_id LIMIT :most FOR UPDATE OF c SKIP LOCKED)
    RETURNING stop_id
""")


def end_former_processes(conn: Connection, locked: LockedRows, moves: Sequence[Move], limits: Limits) -> dict[str, str]:
    """Open a stop for the former process of each locked session that a report moves to another runner.

    Return the runners to be told, by session. The reporting runner keeps the process that it may have been told to end
    before.
    """
    former = [
        (move.run, session)
        for move in moves
        if (session := locked.sessions[move.run.session_id]).runner_id is not None
        and session.registration != move.run.registration
    ]
    if not former:
        return {}
    end_superseded(conn, [(run.holder[0], run.session_id) for run, _ in former])
    opened = conn.execute(
        _OPEN,
        {
            "runners": [session.runner_id for _, session in former],
            "registrations": [session.registration for _, session in former],
            "sessions": [session.session_id for _, session in former],
            "stop_timeout": limits.stop_timeout,
        },
    )
    return {row.session_id: row.runner_id for row in opened}


def end_superseded(conn: Connection, ended: Sequence[tuple[str, str]]) -> None:
    if ended:
        runners, sessions = [runner_id for runner_id, _ in ended], [session_id for _, session_id in ended]
        conn.execute(_CLOSE, {"runners": runners, "sessions": sessions})
