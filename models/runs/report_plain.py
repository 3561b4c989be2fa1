"""Applies reports of the plain case in one statement; ``report_runs`` applies the others (docs/decisions/0043).

Plain is a report with the current token about a claimed or running run that moves, and whose session is neither
stopped nor given a parent, a former process or a result of a child by it. A failure of a run with a retry policy is
not plain, nor is an end after which a run of the session may be held.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection

from models.auth.audit import Act, audited_report
from models.core.facts import ENDED, STARTED, note
from models.core.limits import DEFAULT_LIMITS, Limits
from models.core.plain import NOT_PLAIN, NotPlain
from models.core.statuses import Cause, ExecutionMode, Outcome, RunStatus, RunType
from models.runs.report import IS_REPORTER, MOVES_TO, Reported, ReportResult, outcome_of_session
from models.runs.reports import Report, error_of_run
from models.schema.driver import fetch_all
from models.schema.sql import sql
from models.state.event_sql import (
    TOLD_RECORDED,
    run_failed_frame,
    run_updated_frame,
    session_event_frame,
    session_frame,
)
from models.state.holds import ANY_SELECTOR
from models.state.plain_locks import locked_versions, read_item_sessions
from models.state.sessions import SESSION_COLUMNS_OF_S

_MOVED: Final = {name: f"m.{name}" for name in ("run_id", "session_id", "status", "runner_id", "attempt", "error")}
_RUN_START: Final = session_event_frame(event_type="'run_start'", session_id="m.session_id", moment="m.started_at")
_RUN_COMPLETED: Final = session_event_frame(
    event_type="'run_completed'",
    session_id="m.session_id",
    moment="m.completed_at",
    exit_code="0",
    reason=f"'{RunStatus.COMPLETED}'",
)

# candidate: reports that are plain by the snapshot of the statement. plain: those whose rows are still the same, by the
# place of the row's version, when the locks are granted. Every transaction that adds a run or a stop to a session
# updates the session's row, so what is read beside the locked rows is then as it was, too.
_REPORT = sql(
    """
    WITH item AS MATERIALIZED (
        SELECT i.*, count(*) OVER (PARTITION BY r.session_id) AS reports,
            r.session_id, r.session_seq, r.status AS former, r.ctid AS run_version, r.registration, r.claimed_by,
            r.claimed_by_registration, r.type, r.execution_mode, r.parent_session_id, r.started_at IS NULL AS starts,
            r.runner_id AS holder, r.claim_token AS current_token, r.retry IS NULL AS fails_at_once
        FROM unnest(CAST(:runs AS text[]), CAST(:runners AS text[]), CAST(:subjects AS text[]),
                    CAST(:tokens AS text[]), CAST(:statuses AS text[]), CAST(:outcomes AS text[]),
                    CAST(:errors AS text[]))
            WITH ORDINALITY AS i(run_id, runner_id, subject, claim_token, status, outcome, error, place)
        JOIN runs r ON r.run_id = i.run_id AND r.run_id = ANY(CAST(:runs AS text[]))
    ), reporter AS MATERIALIZED (
        SELECT runner_id, owner, capacity FROM runners
        WHERE runner_id = ANY(CAST(:runners AS text[])) AND sends_tokens AND $is_reporter
    ), $its_session, candidate AS MATERIALIZED (
        SELECT i.place, i.run_id, i.session_id, i.former, i.run_version, i.current_token, i.status, i.outcome, i.error,
            i.starts, i.starts AND i.type = '$resume' AS resumed,
            s.version AS session_version, s.status AS former_status,
            next.run_id AS next_run, next.version AS next_version, next.due,
            i.status <> $RUNNING AND (next.run_id IS NOT NULL OR k.capacity IS NOT NULL) AS frees
        FROM item i
        JOIN reporter k ON k.runner_id = i.runner_id AND (i.subject IS NULL OR k.owner IS NULL OR k.owner = i.subject)
        JOIN its_session s ON s.session_id = i.session_id
        LEFT JOIN LATERAL (
            SELECT r.run_id, r.session_seq, r.ctid AS version, r.not_before IS NULL OR r.not_before <= now() AS due
            FROM runs r
            WHERE r.session_id = i.session_id AND r.status IN $UNFINISHED AND r.run_id <> i.run_id
            ORDER BY r.session_seq LIMIT 1
        ) next ON true
        LEFT JOIN LATERAL (SELECT true AS is_open FROM stop_commands c WHERE c.session_id = i.session_id LIMIT 1)
            stop ON true
        LEFT JOIN LATERAL (
            SELECT true AS waits FROM child_results w
            WHERE w.parent_session_id = i.session_id AND w.delivered_in IS NULL LIMIT 1
        ) result ON true
        WHERE i.reports = 1
          AND i.holder = i.runner_id AND i.current_token = i.claim_token
          AND (i.subject IS NULL
               OR (i.claimed_by = i.subject AND i.claimed_by_registration = i.registration))
          AND (i.former = $CLAIMED OR (i.former = $RUNNING AND i.status <> $RUNNING))
          AND s.status <> $STOPPING AND stop.is_open IS NULL
          AND (s.runner_id IS NULL OR s.registration = i.registration)
          AND (next.session_seq IS NULL OR next.session_seq > i.session_seq)
          AND (result.waits IS NULL OR i.status = $RUNNING)
          AND (i.status <> $FAILED OR i.fails_at_once)
          -- the next run may be held
          AND (i.status = $RUNNING OR next.run_id IS NULL
               OR ($any_selector IS NULL AND (SELECT true FROM holds h WHERE h.run_id = next.run_id) IS NULL))
          -- the parent is called back
          AND (i.status = $RUNNING OR i.execution_mode <> '$callback' OR i.parent_session_id IS NULL
               OR i.parent_session_id = i.session_id)
          -- the parent changes
          AND (NOT i.starts OR i.type <> '$resume' OR i.parent_session_id IS NULL
               OR i.parent_session_id IS NOT DISTINCT FROM s.parent_session_id)
    ), $locked_versions, plain AS MATERIALIZED (
        SELECT c.* FROM candidate c
        WHERE c.run_version = ANY(ARRAY(SELECT version FROM locked_run))
          AND c.session_version = ANY(ARRAY(SELECT version FROM locked_session))
          AND (c.next_version IS NULL OR c.next_version = ANY(ARRAY(SELECT version FROM locked_run)))
    ), moved AS (
        UPDATE runs r
        SET status = p.status,
            ready = false,
            error = coalesce(p.error, r.error),
            attempt = r.attempt + CASE WHEN p.starts THEN 1 ELSE 0 END,
            started_at = CASE WHEN p.starts THEN clock_timestamp() ELSE r.started_at END,
            completed_at = CASE WHEN p.status IN $TERMINAL THEN clock_timestamp() END,
            run_deadline_at = CASE WHEN p.status = $RUNNING
                THEN now() + make_interval(secs => r.run_timeout_seconds) END,
            claim_deadline_at = NULL,
            ended_by_us = false,
            fruitless_claims = CASE WHEN p.former = $RUNNING THEN 0 ELSE r.fruitless_claims END,
            unheld_beats = 0
        FROM plain p
        WHERE r.ctid = p.run_version AND r.status = p.former AND r.claim_token = p.current_token
        RETURNING p.place, p.frees, p.starts, p.resumed, p.outcome, p.former_status, p.session_version, p.next_version,
            p.due,
            r.run_id, r.session_id, r.owner, r.status, r.runner_id, r.registration, r.attempt, r.error, r.started_at,
            r.completed_at, r.delivered_at
    ), readied AS (
        UPDATE runs r
        SET ready = true, match_deadline_at = now() + make_interval(secs => r.no_match_timeout_seconds)
        FROM moved m
        WHERE r.ctid = m.next_version AND m.status <> $RUNNING AND m.due AND r.status = $PENDING AND NOT r.ready
    ), updated AS (
        UPDATE sessions s
        SET status = CASE WHEN m.status = $RUNNING THEN $RUNNING
                WHEN m.next_version IS NOT NULL THEN $PENDING ELSE m.outcome END,
            last_outcome = coalesce(m.outcome, s.last_outcome),
            runner_id = CASE WHEN m.status = $RUNNING OR m.outcome = $IDLE THEN m.runner_id END,
            registration = CASE WHEN m.status = $RUNNING OR m.outcome = $IDLE THEN m.registration END,
            last_resumed_at = CASE WHEN m.resumed THEN now() ELSE s.last_resumed_at END,
            last_sign_at = clock_timestamp()
        FROM moved m
        WHERE s.ctid = m.session_version
        RETURNING m.place, m.former_status <> s.status OR m.resumed AS changed, $session
    ), told AS (
        SELECT 1 AS step, m.place, 'run_updated' AS kind, m.session_id, $run_updated AS frame, m.owner, m.run_id,
            CAST(NULL AS text) AS event_type
        FROM moved m
        UNION ALL
        SELECT 2, u.place, 'session_updated', u.session_id, $session_updated, u.owner, NULL, NULL
        FROM updated u WHERE u.changed
        UNION ALL
        SELECT 3, 2 * m.place, 'event', m.session_id, $run_start, m.owner, m.run_id, 'run_start'
        FROM moved m WHERE m.starts
        UNION ALL
        SELECT 3, 2 * m.place + 1, 'event', m.session_id, $run_completed, m.owner, m.run_id, 'run_completed'
        FROM moved m WHERE m.status = $COMPLETED
        UNION ALL
        SELECT 3, 2 * m.place + 1, 'run_failed', m.session_id, $run_failed, m.owner, m.run_id, NULL
        FROM moved m WHERE m.status = $FAILED
    ), $told_recorded
    SELECT place, run_id, session_id, status, frees,
        CASE WHEN starts THEN CAST(extract(epoch FROM started_at - delivered_at) AS float) END AS started_after,
        CAST(extract(epoch FROM completed_at - started_at) AS float) AS lasted
    FROM moved
""",
    is_reporter=IS_REPORTER,
    any_selector=ANY_SELECTOR,
    resume=RunType.RESUME.value,
    callback=ExecutionMode.ASYNC_CALLBACK.value,
    run_updated=run_updated_frame(**_MOVED),
    session_updated=session_frame("u"),
    run_start=_RUN_START,
    run_completed=_RUN_COMPLETED,
    run_failed=run_failed_frame(run_id="m.run_id", session_id="m.session_id", error="m.error"),
    told_recorded=TOLD_RECORDED,
    session=SESSION_COLUMNS_OF_S,
    its_session=read_item_sessions("status, runner_id, registration, parent_session_id"),
    locked_versions=locked_versions("SELECT run_id FROM candidate UNION ALL SELECT next_run FROM candidate"),
)


def report_plain_runs(
    conn: Connection, items: Sequence[Report], *, limits: Limits = DEFAULT_LIMITS
) -> list[ReportResult | NotPlain]:
    """Apply the reports of the plain case as ``report_runs`` would, in one statement; leave the others NOT_PLAIN.

    Of several reports about runs of one session none is plain. A repeat of one that took effect is not plain.
    """
    results: list[ReportResult | NotPlain] = [NOT_PLAIN] * len(items)
    tokens = [_plain_token(item) for item in items]
    if not any(tokens):
        return results
    values = {
        "runs": [item.run_id for item in items],
        "runners": [item.runner_id for item in items],
        "subjects": [item.subject for item in items],
        "tokens": tokens,
        "statuses": [MOVES_TO[item.outcome].value for item in items],
        "outcomes": [outcome_of_session(item) for item in items],
        "errors": [error_of_run(item) for item in items],
        "lost_after": limits.lost_after,
        "forget_runner": limits.forget_runner,
    }
    for row in fetch_all(conn, _REPORT, values):
        results[row.place - 1] = Reported(row.run_id, row.session_id, row.status, changed=True, frees=row.frees)
        if row.started_after is not None:
            note(conn, STARTED, value=row.started_after)
        if row.lasted is not None:
            note(conn, ENDED, row.status, Cause.REPORTED, value=row.lasted)
    return results


def _plain_token(item: Report) -> str | None:
    """Return the item's token; None, which leaves it to the verb, if its end may have to be audited."""
    ends = item.outcome is not Outcome.STARTED
    return None if ends and audited_report(item.caller, Act.RUN_ENDED, item.run_id, None, None) else item.claim_token
