from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from models.claims.matching import AUTONOMOUS, Demands

CHUNK: Final = 100_000
# Space the ids as if a hundred runs had been submitted each second: a claim's watermark lies 60 s of ids below the
# lowest ready one (models/claims/watermarks.py), and without spacing would lie before all of them.
MILLISECONDS_APART: Final = 10
PAST_SECONDS: Final = 100_000

_PROFILE = """
    INSERT INTO demand_profiles (hash, executor_type, tags) VALUES (%(hash)s, %(executor_type)s, %(tags)s)
    ON CONFLICT (hash) DO UPDATE SET last_used_at = now() RETURNING profile_id
"""

_SESSIONS = """
    INSERT INTO sessions (session_id, incarnation, status, next_run)
    SELECT %(series)s || lpad(n::text, 12, '0'), 'bench', 'pending', 2
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
"""

# Ids of the past: these runs come before all others of their priority.
_RUNS = """
    INSERT INTO runs (run_id, session_id, session_seq, type, parameters, execution_mode, demands, profile_id, ready,
        no_match_timeout_seconds, match_deadline_at, not_before)
    SELECT 'run_' || lpad(to_hex(%(epoch)s::bigint + n * %(apart)s::bigint), 12, '0') || %(series)s,
        %(series)s || lpad(n::text, 12, '0'), 1, 'start_session', '{"prompt": "bench"}', 'sync', %(demands)s,
        (%(profiles)s::bigint[])[1 + n %% cardinality(%(profiles)s::bigint[])], %(ready)s, 604800,
        CASE WHEN %(ready)s THEN now() + interval '7 days' END,
        CASE WHEN NOT %(ready)s THEN now() + interval '1 day' END
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
"""

# Rows of ended runs: session and run, which no transaction touches any more, and their numbered events.
_ENDED_SESSIONS = """
    INSERT INTO sessions (session_id, incarnation, status, last_outcome, next_run, created_at)
    SELECT 'ended-' || lpad(n::text, 12, '0'), 'bench', 'finished', 'finished', 2, now() - interval '1 day'
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
"""
_ENDED_RUNS = """
    INSERT INTO runs (run_id, session_id, session_seq, type, parameters, execution_mode, demands, profile_id, status,
        ready, no_match_timeout_seconds, attempt, started_at, completed_at)
    SELECT 'run_' || lpad(to_hex(%(epoch)s::bigint + n), 12, '0') || 'ended',
        'ended-' || lpad(n::text, 12, '0'), 1, 'start_session', '{"prompt": "bench"}', 'sync', '{"tags":[]}',
        %(profile)s, 'completed', false, 300, 1, now() - interval '1 day', now() - interval '1 day'
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
"""
_ENDED_EVENTS = """
    INSERT INTO events (feed_pos, event_uid, kind, session_id, frame, created_at)
    SELECT (n - 1) * %(each)s + k, 'ended-' || n || '-' || k, 'run_updated', 'ended-' || lpad(n::text, 12, '0'),
        '{"run":{"run_id":"of the bench","status":"completed","runner_id":null,"attempt":1,"error":null}}',
        now() - interval '1 day'
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) n CROSS JOIN generate_series(1, %(each)s::bigint) k
"""
_NUMBERED = """
    UPDATE feed_head SET last_pos = (SELECT max(feed_pos) FROM events),
        numbered_below = (SELECT max(id) FROM events), next_floor = (SELECT max(id) FROM events)
"""
# Without it workers would count the filled history while something is measured.
COUNTED: Final = "UPDATE run_totals_head SET position = (SELECT last_pos FROM feed_head), as_of = now()"

_RUNNERS = """
    INSERT INTO runners (runner_id, hostname, project_dir, executor_profile, executor_type, tags, told_interval,
        instance_id)
    SELECT 'lnch_' || lpad(to_hex(n), 12, '0'), 'filled-' || n, '/srv/work', 'bench', 'autonomous',
        ARRAY['filled-' || n %% 100], 10, 'filled-' || n
    FROM generate_series(1, %(count)s::bigint) n
    RETURNING runner_id
"""


@contextmanager
def database(url: str) -> Iterator[Connection[TupleRow]]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        yield connection


def pending_runs(url: str, series: str, first: int, last: int, tags: list[str], *, ready: bool = True) -> None:
    """Insert pending runs number `first` to `last` of a series, evenly spread over demand sets of one tag each.

    `ready` False delays them by a day.
    """
    with database(url) as connection:
        filled = {
            "series": series,
            "demands": '{"tags":[]}',
            "profiles": [_profile(connection, tag) for tag in tags],
            "ready": ready,
            "apart": MILLISECONDS_APART,
            "epoch": _epoch(connection),
        }
        # Insert in pieces, so that a checkpoint has little to do at once and a reader meets no transaction of minutes.
        # Vacuum them afterwards, or autovacuum does it while something is measured.
        for begin in range(first, last + 1, CHUNK):
            piece = {**filled, "first": begin, "last": min(begin + CHUNK - 1, last)}
            connection.execute(_SESSIONS, piece)
            connection.execute(_RUNS, piece)
        connection.execute("VACUUM (ANALYZE) runs, sessions, demand_profiles")


def ended_runs(url: str, count: int, tag: str, *, events_each: int) -> None:
    with database(url) as connection:
        common = {"profile": _profile(connection, tag), "epoch": _epoch(connection), "each": events_each}
        for begin in range(1, count + 1, CHUNK // events_each):
            piece = {**common, "first": begin, "last": min(begin + CHUNK // events_each - 1, count)}
            for statement in (_ENDED_SESSIONS, _ENDED_RUNS, _ENDED_EVENTS):
                connection.execute(statement, piece)
        connection.execute(_NUMBERED)
        connection.execute(COUNTED)
        connection.execute("VACUUM (ANALYZE) runs, sessions, events, demand_profiles")


def runners(url: str, count: int) -> list[str]:
    with database(url) as connection:
        ids = [row[0] for row in connection.execute(_RUNNERS, {"count": count})]
        connection.execute("ANALYZE runners")
        return ids


def _profile(connection: Connection[TupleRow], tag: str) -> int:
    demands = Demands(executor_type=AUTONOMOUS, tags=(tag,))
    values = {"hash": demands.hash, "executor_type": demands.executor_type, "tags": list(demands.tags)}
    row = connection.execute(_PROFILE, values).fetchone()
    if row is None:
        raise LookupError(tag)
    return int(row[0])


def _epoch(connection: Connection[TupleRow]) -> int:
    row = connection.execute("SELECT extract(epoch FROM now())").fetchone()
    if row is None:
        raise LookupError("now()")
    return 1000 * (int(row[0]) - PAST_SECONDS)
