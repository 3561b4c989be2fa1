"""Fill a database with the history of a large installation and a backlog, in minutes: indexes are built afterwards."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from psycopg import Connection
from psycopg.rows import TupleRow

from benchmarks import fill
from models.overview.rollup import GROUPS_OF_C
from models.schema.sql import sql

CHUNK: Final = 250_000
OWNERS: Final = 50
# One owner in a thousand runs, and the runs that searches look for.
RARE_OWNER: Final = "owner-rare"
OWNER: Final = "owner-7"
AGENT: Final = "agent-7-1"
LOG_EVENTS: Final = 5_000

_PROFILES: Final = """
    INSERT INTO demand_profiles (hash, executor_profile, tags)
    SELECT 'history ' || n, 'profile-' || n % 10, ARRAY['tag-' || n] FROM generate_series(0, 99) n
"""
# Numbers of ended runs, oldest first, over 30 days; each has its own session. Owners take turns, so that the rows of
# one lie far apart.
_NUMBERED: Final = """
    SELECT n, now() - (%(runs)s::bigint - n) * interval '30 days' / %(runs)s::bigint AS at,
        CASE WHEN n %% 1000 = 77 THEN 'owner-rare' ELSE 'owner-' || n %% 50 END AS owner,
        'agent-' || n %% 50 || '-' || n / 50 %% 4 AS agent, substr(md5(n::text), 1, 20) AS digits,
        CASE WHEN n %% 33 = 0 THEN 'failed' WHEN n %% 5000 = 1 THEN 'stopped' ELSE 'completed' END AS status
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
"""
_ID: Final = "lpad(to_hex((extract(epoch FROM h.at) * 1000)::bigint), 12, '0') || h.digits"
_SESSIONS: Final = """
    INSERT INTO sessions (session_id, incarnation, owner, status, last_outcome, next_run, agent_name, created_at)
    SELECT 'ses_' || $id, 'bench', h.owner, CASE h.status WHEN 'completed' THEN 'finished' ELSE h.status END,
        CASE h.status WHEN 'completed' THEN 'finished' ELSE h.status END, 2, h.agent, h.at
    FROM ($numbered) h
"""
_RUNS: Final = """
    INSERT INTO runs (run_id, session_id, session_seq, owner, type, agent_name, parameters, execution_mode, demands,
        labels, profile_id, status, ready, attempt, no_match_timeout_seconds, runner_id, registration, claim_token,
        error, created_at, claimed_at, delivered_at, started_at, completed_at)
    SELECT 'run_' || $id, 'ses_' || $id, 1, h.owner, 'start_session', h.agent, '{"prompt":"Summarise the document"}',
        'sync', '{"tags":[]}', CASE WHEN h.n %% 1000 = 0 THEN '{"team":"a","batch":"nightly"}'::jsonb
            WHEN h.n %% 10 = 0 THEN '{"team":"a"}'::jsonb END,
        (SELECT min(profile_id) FROM demand_profiles WHERE hash LIKE 'history %%') + h.n %% 100, h.status, false, 1,
        300,
        'lnch_' || lpad(to_hex(1 + h.n %% 500), 12, '0'), 1 + h.n %% 500, h.digits,
        CASE WHEN h.status = 'failed' THEN 'Traceback (most recent call last): exit code ' || h.n %% 7 END,
        h.at, h.at + interval '1 second', h.at + interval '1 second', h.at + interval '2 seconds',
        h.at + interval '3 seconds' + h.n %% 60 * interval '1 second'
    FROM ($numbered) h
"""
# Of each 20: 15 ready, 4 delayed by a day, of the last ten days, and one that waits for another run.
_BACKLOG: Final = """
    WITH h AS MATERIALIZED (
        SELECT n, n %% 20 < 15 AS ready, n %% 20 BETWEEN 15 AND 18 AS delayed, substr(md5('b' || n), 1, 20) AS digits,
            now() - n * CASE WHEN n %% 20 BETWEEN 15 AND 18 THEN interval '10 days' ELSE interval '6 hours' END
                / %(backlog)s::bigint AS at,
            CASE WHEN n %% 1000 = 77 THEN 'owner-rare' ELSE 'owner-' || n %% 50 END AS owner
        FROM generate_series(1, %(backlog)s::bigint) n
    ), of_sessions AS (
        INSERT INTO sessions (session_id, incarnation, owner, status, next_run, created_at)
        SELECT 'ses_' || $id, 'bench', h.owner, 'pending', 2, h.at FROM h
    )
    INSERT INTO runs (run_id, session_id, session_seq, owner, type, agent_name, parameters, execution_mode, demands,
        profile_id, status, ready, no_match_timeout_seconds, match_deadline_at, not_before, created_at)
    SELECT 'run_' || $id, 'ses_' || $id, 1, h.owner, 'start_session', 'agent-' || n %% 50 || '-0', '{"prompt":"x"}',
        'sync', '{"tags":[]}',
        (SELECT min(profile_id) FROM demand_profiles WHERE hash LIKE 'history %%') + n / 20 %% 100, 'pending', ready,
        604800, CASE WHEN ready THEN now() + interval '7 days' END,
        CASE WHEN delayed THEN now() + interval '1 day' END, h.at
    FROM h
"""
_IN_HAND: Final = """
    WITH h AS MATERIALIZED (
        SELECT n, substr(md5('r' || n), 1, 20) AS digits, now() - interval '6 hours' - n * interval '1 second' AS at,
            'owner-' || n %% 50 AS owner FROM generate_series(1, %(in_hand)s::bigint) n
    ), of_sessions AS (
        INSERT INTO sessions (session_id, incarnation, owner, status, next_run, created_at, runner_id, registration)
        SELECT 'ses_' || $id, 'bench', h.owner, 'running', 2, h.at, n.runner_id, n.registration
        FROM h JOIN runners n ON n.runner_id = 'lnch_' || lpad(to_hex(1 + h.n %% 500), 12, '0')
    )
    INSERT INTO runs (run_id, session_id, session_seq, owner, type, agent_name, parameters, execution_mode, demands,
        profile_id, status, ready, attempt, no_match_timeout_seconds, runner_id, registration, claim_token, created_at,
        claimed_at, delivered_at, started_at)
    SELECT 'run_' || $id, 'ses_' || $id, 1, h.owner, 'start_session', 'agent-' || h.n %% 50 || '-0',
        '{"prompt":"x"}', 'sync', '{"tags":[]}',
        (SELECT min(profile_id) FROM demand_profiles WHERE hash LIKE 'history %%') + h.n %% 100, 'running', false, 1,
        300, n.runner_id, n.registration, h.digits, h.at, h.at, h.at, h.at
    FROM h JOIN runners n ON n.runner_id = 'lnch_' || lpad(to_hex(1 + h.n %% 500), 12, '0')
"""
# Counts by the minute of the last 25 hours as the duty makes them; those by the hour of 30 days for all and for owners.
_MINUTES: Final = """
    INSERT INTO run_totals (step, grouped_by, owner, measure, period, label, bucket, number)
    SELECT w.step, g.grouped_by, g.owner, c.measure, date_bin(make_interval(secs => w.step), c.at, 'epoch'), g.label,
        c.bucket, sum(c.number)
    FROM (SELECT date_bin('1 minute', m.at, 'epoch') AS at, r.owner, r.profile_id, r.agent_name AS agent, m.measure,
              m.bucket, count(*) AS number
          FROM runs r
          CROSS JOIN LATERAL (VALUES ('submitted', r.created_at, 0), ('claimed', r.claimed_at, 0),
              (r.status, r.completed_at, 0), ('wait', r.claimed_at, 1 + abs(hashtext(r.run_id)) %% 8),
              ('duration', r.completed_at, 1 + abs(hashtext(r.session_id)) %% 8)) m(measure, at, bucket)
          WHERE r.created_at > now() - interval '25 hours' AND r.completed_at IS NOT NULL
          GROUP BY 1, 2, 3, 4, 5, 6) c
    CROSS JOIN (VALUES (60), (3600)) w(step) CROSS JOIN LATERAL $groups
    GROUP BY 1, 2, 3, 4, 5, 6, 7
"""
_HOURS: Final = """
    INSERT INTO run_totals (step, grouped_by, owner, measure, period, label, bucket, number)
    SELECT 3600, g.grouped_by, g.owner, m.measure, date_bin('1 hour', now(), 'epoch') - hours * interval '1 hour', '',
        m.bucket, 100
    FROM generate_series(26, 720) hours
    CROSS JOIN (SELECT 'all', '' UNION ALL SELECT 'owner', 'owner-' || n FROM generate_series(0, 49) n)
        g(grouped_by, owner)
    CROSS JOIN (SELECT unnest(ARRAY['submitted', 'claimed', 'completed', 'failed', 'stopped']), 0
                UNION ALL SELECT w, b FROM unnest(ARRAY['wait', 'duration']) w, generate_series(1, 8) b)
        m(measure, bucket)
"""
# Events of the newest ended runs, and a log of one of them.
_EVENTS: Final = """
    INSERT INTO events (feed_pos, kind, event_type, session_id, run_id, owner, frame, created_at)
    SELECT row_number() OVER (ORDER BY at, run_id), kind, event_type, session_id, run_id, owner, frame::json, at
    FROM (
        SELECT 'run_updated' AS kind, NULL AS event_type, r.session_id, r.run_id, r.owner, r.created_at AS at,
            json_build_object('run', json_build_object('run_id', r.run_id, 'session_id', r.session_id, 'status', s,
                'runner_id', r.runner_id, 'attempt', 1, 'error', NULL))::text AS frame
        FROM (SELECT * FROM runs WHERE status = 'completed' ORDER BY created_at DESC LIMIT 5000) r,
            unnest(ARRAY['pending', 'claimed', 'running', 'completed']) s
        UNION ALL
        SELECT 'event', 'message', r.session_id, r.run_id, r.owner, r.created_at,
            json_build_object('data', json_build_object('event_type', 'message', 'session_id', r.session_id,
                'text', 'line ' || line))::text
        FROM (SELECT * FROM runs WHERE status = 'completed' ORDER BY created_at DESC LIMIT 1) r,
            generate_series(1, %(log)s::bigint) line
    ) e
"""
_HEADS: Final[tuple[LiteralString, ...]] = (
    "UPDATE feed_head SET last_pos = (SELECT max(feed_pos) FROM events)",
    "UPDATE feed_head SET numbered_below = (SELECT max(id) FROM events), next_floor = (SELECT max(id) FROM events)",
    fill.COUNTED,
)
_VACUUM: Final = "VACUUM (ANALYZE) runs, sessions, run_totals"
_INDEXES: Final = """
    SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i
    WHERE i.indrelid = ANY(ARRAY['runs', 'sessions', 'run_totals']::regclass[]) AND NOT i.indisunique
"""


@dataclass(frozen=True, slots=True)
class History:
    """Ids of rows that pages look at: a run that has ended, one with a log, one that waits, a runner, a session."""

    ended: str
    logged: str
    session: str
    pending: str
    runner: str


def fill_history(url: str, *, runs: int, backlog: int, in_hand: int) -> History:
    """Insert ended runs, pending ones and runs in hand, with their sessions, counts and some events."""
    fill.runners(url, 500)
    with fill.database(url) as connection, _without_indexes(connection):
        connection.execute(_PROFILES)
        for first in range(1, runs + 1, CHUNK):
            piece = {"runs": runs, "first": first, "last": min(first + CHUNK - 1, runs)}
            for statement in (_SESSIONS, _RUNS):
                _execute(connection, statement, piece, id=_ID, numbered=_NUMBERED)
        _execute(connection, _MINUTES, {}, groups=GROUPS_OF_C)
        connection.execute(_HOURS)
    with fill.database(url) as connection:
        connection.execute(_VACUUM)
        # Not vacuumed: as in an installation at work, no page of the backlog is known to be visible to all.
        _execute(connection, _BACKLOG, {"backlog": backlog}, id=_ID)
        _execute(connection, _IN_HAND, {"in_hand": in_hand}, id=_ID)
        connection.execute(_EVENTS, {"log": LOG_EVENTS})
        for head in _HEADS:
            connection.execute(head)
        connection.execute("ANALYZE")
        return _history(connection)


def _history(connection: Connection[TupleRow]) -> History:
    def one(query: LiteralString, *values: Any) -> tuple[Any, ...]:
        row = connection.execute(query, values).fetchone()
        if row is None:
            raise LookupError(query)
        return row

    ended, session = one(
        "SELECT run_id, session_id FROM runs WHERE status = 'completed' AND owner = %s"
        " ORDER BY created_at DESC OFFSET 5 LIMIT 1",
        OWNER,
    )
    (logged,) = one("SELECT session_id FROM runs WHERE status = 'completed' ORDER BY created_at DESC LIMIT 1")
    (pending,) = one("SELECT run_id FROM runs WHERE status = 'pending' AND ready AND owner = %s LIMIT 1", OWNER)
    (runner,) = one("SELECT runner_id FROM runners LIMIT 1")
    return History(ended, logged, session, pending, runner)


@contextmanager
def _without_indexes(connection: Connection[TupleRow]) -> Iterator[None]:
    """Drop the indexes that no constraint needs, and build them at the end. A crash of the server loses all of it."""
    for setting in ("fsync = off", "full_page_writes = off", "max_wal_size = '16GB'"):
        _execute(connection, "ALTER SYSTEM SET $setting", setting=setting)
    connection.execute("SELECT pg_reload_conf()")
    connection.execute("SET maintenance_work_mem = '1GB'")
    connection.execute("SET max_parallel_maintenance_workers = 0")
    dropped = connection.execute(_INDEXES).fetchall()
    for name, _ in dropped:
        _execute(connection, "DROP INDEX $name", name=name)
    yield
    for _, definition in dropped:
        _execute(connection, "$definition", definition=definition)
    connection.execute("ALTER SYSTEM RESET ALL")
    connection.execute("SELECT pg_reload_conf()")
    connection.execute("CHECKPOINT")


def _execute(
    connection: Connection[TupleRow], statement: str, values: Mapping[str, Any] | None = None, **parts: str
) -> None:
    connection.execute(sql(statement, **parts).text.encode(), values)
