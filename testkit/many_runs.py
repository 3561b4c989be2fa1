"""Long histories of ended runs, written into a database without the work of making them."""

from typing import Final

import psycopg

# Begin a minute ago and go back a second a run, so that runs that are submitted later come before all of them.
_FILL: Final = (
    """
    INSERT INTO demand_profiles (hash, tags) VALUES ('many-runs', '{}') ON CONFLICT (hash) DO NOTHING
    """,
    """
    INSERT INTO sessions (session_id, incarnation, status, last_outcome, next_run, created_at)
    SELECT 'many-' || n, 'many', 'finished', 'finished', 2, now() - interval '1 minute' - n * interval '1 second'
    FROM generate_series(0, %(count)s::bigint - 1) n
    """,
    """
    INSERT INTO runs (run_id, session_id, session_seq, type, agent_name, parameters, execution_mode, demands,
        profile_id, no_match_timeout_seconds, status, ready, attempt, labels, error, created_at, started_at,
        completed_at)
    SELECT 'run_many' || n, 'many-' || n, 1, 'start_session', 'agent-' || n %% 7,
        json_build_object('prompt', 'Summarise chapter ' || n || ' of the handbook and list its open questions'),
        'sync', '{"tags":[]}', (SELECT profile_id FROM demand_profiles WHERE hash = 'many-runs'), 300,
        CASE WHEN n %% 30 = 0 THEN 'failed' ELSE 'completed' END, false, 1,
        jsonb_build_object('team', 'team-' || n %% 12),
        CASE WHEN n %% 30 = 0 THEN 'Exit code 1: the disk is full' END,
        created, created + interval '2 seconds', created + interval '30 seconds'
    FROM generate_series(0, %(count)s::bigint - 1) n
    CROSS JOIN LATERAL (SELECT now() - interval '1 minute' - n * interval '1 second' AS created) t
    """,
)


def id_of(number: int) -> str:
    """Return the id of the run that has so many newer ones."""
    return f"run_many{number}"


def fill_ended_runs(url: str, count: int) -> None:
    """Insert ended runs with sessions, prompts, labels and errors; the newest is `id_of(0)`."""
    plain = url.replace("postgresql+psycopg://", "postgresql://", 1)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in _FILL:
            connection.execute(statement, {"count": count})
        connection.execute("ANALYZE runs, sessions")
