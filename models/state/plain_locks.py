"""Locks of statements of the plain case: what was decided by the snapshot holds for rows that are the same versions."""

from models.schema.sql import sql


def read_item_sessions(columns: str) -> str:
    """Return the CTE ``its_session``: these columns of the sessions of ``item``, with the version."""
    return sql(
        """its_session AS MATERIALIZED (
        SELECT session_id, ctid AS version, $columns FROM sessions
        WHERE session_id = ANY(ARRAY(SELECT session_id FROM item))
        -- by the primary key: in small tables an index that has the id in its second column looks as good
        ORDER BY session_id
    )""",
        columns=columns,
    ).text


def locked_versions(runs: str) -> str:
    """Return the CTEs ``locked_run`` and ``locked_session``, which lock these runs and the sessions of ``candidate``.

    In the order of all transactions: runs first, each kind by its ids.
    """
    return sql(
        """locked_run AS MATERIALIZED (
        SELECT run_id, ctid AS version FROM runs WHERE run_id = ANY(ARRAY($runs)) ORDER BY run_id FOR UPDATE
    ), locked_session AS MATERIALIZED (
        SELECT session_id, ctid AS version FROM sessions
        WHERE session_id = ANY(ARRAY(SELECT session_id FROM candidate)) AND (SELECT count(*) FROM locked_run) >= 0
        ORDER BY session_id FOR UPDATE
    )""",
        runs=runs,
    ).text
