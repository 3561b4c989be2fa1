"""Stops a run in hand in one statement in the plain case; the verbs of ``models.runs.stop`` apply the others.

Plain is a stop of a session whose only unfinished run a runner has, delivered and not yet stopping, without another
stop (docs/decisions/0065).
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, TextClause

from models.core.callers import Caller, Role
from models.core.limits import DEFAULT_LIMITS, Limits
from models.core.plain import NOT_PLAIN, NotPlain
from models.core.statuses import RunStatus, StopCause
from models.runs.stop import STOP_REQUESTED, Stopped, StopResult, StopRun, StopSession
from models.schema.driver import fetch_all
from models.schema.sql import sql
from models.state.event_sql import TOLD_RECORDED, run_updated_frame, session_frame
from models.state.plain_locks import locked_versions, read_item_sessions
from models.state.sessions import SESSION_COLUMNS_OF_S

_MOVED: Final = {name: f"m.{name}" for name in ("run_id", "session_id", "status", "runner_id", "attempt", "error")}

# candidate: stops that are plain by the snapshot of the statement. plain: those whose rows are still the same, by the
# place of the row's version, when the locks are granted. Every transaction that adds a run or a stop to a session
# updates the session's row, so what is read beside the locked rows is then as it was, too.
_TEMPLATE: Final = """
    WITH item AS MATERIALIZED (
        SELECT i.place, i.owner AS limited_to, count(*) OVER (PARTITION BY r.session_id) AS stops, r.run_id,
            r.session_id, r.status AS former, r.claim_token, r.runner_id, r.registration, r.delivered_at,
            r.ctid AS run_version
        FROM unnest(CAST(:ids AS text[]), CAST(:owners AS text[])) WITH ORDINALITY AS i(id, owner, place)
        JOIN runs r ON r.$key = i.id AND r.$key = ANY(CAST(:ids AS text[])) $which
    ), $its_session, candidate AS MATERIALIZED (
        SELECT i.place, i.run_id, i.session_id, i.former, i.run_version, i.claim_token, s.version AS session_version,
            s.status AS former_status, greatest(CAST(:stop_timeout AS double precision), 3 * n.told_interval) AS seconds
        FROM item i
        JOIN its_session s ON s.session_id = i.session_id
        LEFT JOIN runners n ON n.runner_id = i.runner_id
        LEFT JOIN LATERAL (
            SELECT true AS waits FROM runs r
            WHERE r.session_id = i.session_id AND r.status IN $UNFINISHED AND r.run_id <> i.run_id LIMIT 1
        ) other ON true
        LEFT JOIN LATERAL (SELECT true AS is_open FROM stop_commands c WHERE c.session_id = i.session_id LIMIT 1)
            stop ON true
        WHERE i.stops = 1 AND i.delivered_at IS NOT NULL AND i.former IN ($CLAIMED, $RUNNING)
          AND (i.limited_to IS NULL OR s.owner = i.limited_to)
          AND other.waits IS NULL AND stop.is_open IS NULL
    ), $locked_versions, plain AS MATERIALIZED (
        SELECT c.* FROM candidate c
        WHERE c.run_version = ANY(ARRAY(SELECT version FROM locked_run))
          AND c.session_version = ANY(ARRAY(SELECT version FROM locked_session))
    ), moved AS (
        UPDATE runs r
        SET status = $STOPPING,
            ready = false,
            stop_cause = '$cause',
            run_deadline_at = now() + make_interval(secs => p.seconds),
            claim_deadline_at = NULL,
            ended_by_us = false,
            unheld_beats = 0
        FROM plain p
        WHERE r.ctid = p.run_version AND r.status = p.former AND r.claim_token = p.claim_token
        RETURNING p.place, p.seconds, p.former_status, p.session_version, r.run_id, r.session_id, r.owner, r.status,
            r.runner_id, r.registration, r.attempt, r.error
    ), opened AS (
        INSERT INTO stop_commands (runner_id, registration, session_id, run_id, deadline_at)
        SELECT m.runner_id, m.registration, m.session_id, m.run_id,
            clock_timestamp() + make_interval(secs => m.seconds)
        FROM moved m ORDER BY m.session_id
    ), updated AS (
        UPDATE sessions s SET status = $STOPPING
        FROM moved m
        WHERE s.ctid = m.session_version
        RETURNING m.place, m.former_status <> s.status AS changed, $session
    ), told AS (
        SELECT 1 AS step, m.place, 'run_updated' AS kind, m.session_id, $run_updated AS frame, m.owner, m.run_id,
            CAST(NULL AS text) AS event_type
        FROM moved m
        UNION ALL
        SELECT 2, u.place, 'session_updated', u.session_id, $session_updated, u.owner, NULL, NULL
        FROM updated u WHERE u.changed
    ), $told_recorded
    SELECT m.place, m.session_id, m.run_id, m.runner_id,
        ARRAY(SELECT DISTINCT w.instance FROM waiting_polls w WHERE w.runner_id = m.runner_id) AS parked_at
    FROM moved m
"""


def _statement(key: str, which: str = "") -> TextClause:
    return sql(
        _TEMPLATE,
        key=key,
        which=which,
        cause=StopCause.STOP.value,
        run_updated=run_updated_frame(**_MOVED, reason=f"'{STOP_REQUESTED}'"),
        session_updated=session_frame("u"),
        told_recorded=TOLD_RECORDED,
        session=SESSION_COLUMNS_OF_S,
        its_session=read_item_sessions("status, owner"),
        locked_versions=locked_versions("SELECT run_id FROM candidate"),
    )


# By the run in hand, of which a session has one at most.
_STOP_SESSIONS: Final = _statement("session_id", sql("AND r.status IN $IN_HAND").text)
_STOP_RUNS: Final = _statement("run_id")


def stop_plain_sessions(
    conn: Connection, items: Sequence[StopSession], *, limits: Limits = DEFAULT_LIMITS
) -> list[StopResult | NotPlain]:
    """Stop the sessions of the plain case as ``stop_sessions`` would, in one statement; leave the others NOT_PLAIN.

    Of several stops of one session none is plain, and so is none that has to be audited or that a runner asks for.
    """
    asked = [(item.caller, item.session_id) for item in items]
    return _stop_plain(conn, _STOP_SESSIONS, asked, limits)


def stop_plain_runs(
    conn: Connection, items: Sequence[StopRun], *, limits: Limits = DEFAULT_LIMITS
) -> list[StopResult | NotPlain]:
    """Stop the runs of the plain case as ``stop_runs`` would, like ``stop_plain_sessions``."""
    return _stop_plain(conn, _STOP_RUNS, [(item.caller, item.run_id) for item in items], limits)


def _stop_plain(
    conn: Connection, statement: TextClause, asked: Sequence[tuple[Caller, str]], limits: Limits
) -> list[StopResult | NotPlain]:
    results: list[StopResult | NotPlain] = [NOT_PLAIN] * len(asked)
    limited = [_limit(caller) for caller, _ in asked]
    if all(limit is NOT_PLAIN for limit in limited):
        return results
    values = {
        "ids": [None if limit is NOT_PLAIN else id_ for limit, (_, id_) in zip(limited, asked, strict=True)],
        "owners": [None if limit is NOT_PLAIN else limit for limit in limited],
        "stop_timeout": float(limits.stop_timeout),
    }
    for row in fetch_all(conn, statement, values):
        results[row.place - 1] = Stopped(
            row.session_id,
            row.run_id,
            RunStatus.STOPPING.value,
            runner_to_notify=row.runner_id,
            parked_at=frozenset(row.parked_at),
        )
    return results


def _limit(caller: Caller) -> str | NotPlain | None:
    """Return the owner whose sessions the caller may stop without an audited act, None for all, NOT_PLAIN for none."""
    if caller.role is Role.RUNNER:
        return NOT_PLAIN
    if caller.role is Role.ADMIN and caller.by is None:
        return None
    return caller.owner if caller.owner is not None else NOT_PLAIN
