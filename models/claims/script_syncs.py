"""Scripts that procedural runners fetch or remove: queued by a change of a script, sent with a poll's answer.

A row lives from the change until the answer that names it was written. One that was sent and not confirmed is sent
again after 10 s, as a stop is: a sync is at least once, and fetching a script twice changes nothing.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text

from models.claims.matching import PROCEDURAL
from models.schema.sql import sql

# Condition on a row ``y``: not sent yet, or so long ago that its answer may have been lost.
SYNC_DUE: Final = "(y.sent_at IS NULL OR y.sent_at < now() - interval '10 seconds')"
# Condition on a runner ``n``: scripts are due for it. Runners of other types cost no look.
SYNC_DUE_OF_N: Final = sql(
    """(n.executor_type = '$procedural' AND (SELECT true FROM runner_script_syncs y
            WHERE y.runner_id = n.runner_id AND $due LIMIT 1) IS TRUE) IS TRUE""",
    procedural=PROCEDURAL,
    due=SYNC_DUE,
).text
# Names of scripts in one answer; the rest goes with the next poll.
MOST_IN_ANSWER: Final = 500

# Held by registrations together, by a change of a script alone: either the registration reads the changed script, or
# the change sees the registered runner.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('coordinator.script_syncs', 0))")
_LOCK_SHARED = text("SELECT pg_advisory_xact_lock_shared(hashtextextended('coordinator.script_syncs', 0))")

_QUEUED: Final = """
    ON CONFLICT (runner_id, script_name) DO UPDATE
    SET removes = excluded.removes, queued_at = clock_timestamp(), sent_at = NULL, sent_poll = NULL
"""
_QUEUE = sql(
    """
    INSERT INTO runner_script_syncs (runner_id, script_name, removes)
    SELECT n.runner_id, CAST(:name AS text), CAST(:removes AS boolean) FROM runners n
    WHERE n.executor_type = '$procedural' AND n.left_at IS NULL AND n.leave_told_at IS NULL
    ORDER BY n.runner_id
    $queued
    RETURNING runner_id
    """,
    procedural=PROCEDURAL,
    queued=_QUEUED,
)
_QUEUE_ALL = sql(
    """
    INSERT INTO runner_script_syncs (runner_id, script_name)
    SELECT n.runner_id, e.name
    FROM unnest(CAST(:runner_ids AS text[])) AS n(runner_id) CROSS JOIN registry_entries e
    WHERE e.kind = 'scripts'
    ORDER BY n.runner_id, e.name
    $queued
    """,
    queued=_QUEUED,
)

# A locked row is being queued anew, or sent by another poll.
_SEND = sql(
    """
    WITH due AS MATERIALIZED (
        SELECT y.runner_id, y.script_name, a.poll_id
        FROM unnest(CAST(:runner_ids AS text[]), CAST(:polls AS text[])) AS a(runner_id, poll_id)
        CROSS JOIN LATERAL (
            SELECT y.runner_id, y.script_name FROM runner_script_syncs y
            WHERE y.runner_id = a.runner_id AND $due
            ORDER BY y.script_name LIMIT :most FOR UPDATE SKIP LOCKED
        ) y
    )
    UPDATE runner_script_syncs s SET sent_at = clock_timestamp(), sent_poll = due.poll_id
    FROM due WHERE s.runner_id = due.runner_id AND s.script_name = due.script_name
    RETURNING s.runner_id, s.script_name, s.removes
    """,
    due=SYNC_DUE,
)

_OF_POLLS: Final = """
    (SELECT y.runner_id, y.script_name
     FROM unnest(CAST(:runner_ids AS text[]), CAST(:polls AS text[])) AS a(runner_id, poll_id)
     JOIN runner_script_syncs y ON y.runner_id = a.runner_id AND y.sent_poll = a.poll_id
     ORDER BY y.runner_id, y.script_name FOR UPDATE OF y) of_polls
    WHERE s.runner_id = of_polls.runner_id AND s.script_name = of_polls.script_name
"""
_CONFIRM = sql("DELETE FROM runner_script_syncs s USING $of_polls", of_polls=_OF_POLLS)
_NOT_SENT = sql("UPDATE runner_script_syncs s SET sent_at = NULL, sent_poll = NULL FROM $of_polls", of_polls=_OF_POLLS)


@dataclass(frozen=True, slots=True)
class SentScripts:
    """Scripts that the answer of a poll names: those to fetch, and those to remove."""

    runner_id: str
    poll_id: str
    fetch: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


def queue_script_sync(conn: Connection, name: str) -> frozenset[str]:
    """Have every procedural runner fetch the script; return the runners, whose parked polls to wake after the commit.

    Call it when all other rows of the transaction are locked. The last change of a script decides.
    """
    return _queue(conn, name, removes=False)


def queue_script_removal(conn: Connection, name: str) -> frozenset[str]:
    """Have every procedural runner remove the script, as ``queue_script_sync`` does."""
    return _queue(conn, name, removes=True)


def _queue(conn: Connection, name: str, *, removes: bool) -> frozenset[str]:
    conn.execute(_LOCK)
    return frozenset(conn.execute(_QUEUE, {"name": name, "removes": removes}).scalars())


def lock_scripts_for_registration(conn: Connection, types: Iterable[str | None]) -> None:
    """Keep scripts from being changed until the transaction ends, if one of the executors is procedural."""
    if PROCEDURAL in types:
        conn.execute(_LOCK_SHARED)


def queue_all_scripts(conn: Connection, runner_ids: Collection[str]) -> None:
    """Have these procedural runners fetch all scripts; ``lock_scripts_for_registration`` comes before."""
    if runner_ids:
        conn.execute(_QUEUE_ALL, {"runner_ids": sorted(runner_ids)})


def send_scripts(conn: Connection, polls: Mapping[str, str]) -> dict[str, SentScripts]:
    """Mark the due scripts of each runner as sent with its poll; return them by poll."""
    if not polls:
        return {}
    ids = sorted(polls)
    values = {"runner_ids": ids, "polls": [polls[runner_id] for runner_id in ids], "most": MOST_IN_ANSWER}
    rows = conn.execute(_SEND, values).all()
    sent: dict[str, SentScripts] = {}
    for runner_id, poll_id in polls.items():
        names = sorted((row.script_name, row.removes) for row in rows if row.runner_id == runner_id)
        if names:
            fetch = tuple(name for name, removes in names if not removes)
            sent[poll_id] = SentScripts(runner_id, poll_id, fetch, tuple(name for name, removes in names if removes))
    return sent


def confirm_scripts(conn: Connection, items: Sequence[SentScripts]) -> list[SentScripts]:
    """Drop what these answers named, now that they are written; what was queued anew meanwhile stays."""
    conn.execute(_CONFIRM, _values(items))
    return list(items)


def mark_scripts_unsent(conn: Connection, items: Sequence[SentScripts]) -> None:
    """Have the runners' next polls name the scripts again: the clients of these were gone before the first byte."""
    if items:
        conn.execute(_NOT_SENT, _values(items))


def _values(items: Sequence[SentScripts]) -> dict[str, Any]:
    return {"runner_ids": [item.runner_id for item in items], "polls": [item.poll_id for item in items]}
