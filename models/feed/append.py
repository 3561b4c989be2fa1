from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from psycopg.errors import SerializationFailure
from sqlalchemy import Connection, text

from models.core.callers import Caller
from models.core.errors import NotFound, StaleClaim
from models.core.ids import uuid7
from models.feed.event_counts import STORE_BOUNDED, bounds
from models.schema.sql import sql
from models.state.visibility import find_visible, is_visible, owner_filter


@dataclass(frozen=True, slots=True)
class NewEvent:
    """Event to store. ``frame`` is the JSON text ``{"data": {…}}`` that every client will be sent.

    ``event_key`` is the client's, unique in its session; ``event_uid`` is ours, made before the first try. ``run_id``
    is the run that the sender names; a ``claim_token`` takes precedence.
    """

    session_id: str
    caller: Caller
    event_type: str
    frame: str
    event_key: str | None = None
    claim_token: str | None = None
    run_id: str | None = None
    event_uid: str = field(default_factory=uuid7)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    id: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The event was accepted, but its run has as many as may be stored; the run's own events say so once."""


class _Judged(NamedTuple):
    """Decision of the statement on an event; ``place`` counts from 1, ``quiet``: its session had no sign lately."""

    place: int
    session_id: str
    quiet: bool
    active_run: str | None
    status: str | None
    current: bool
    event_uid: str
    kept: bool


AppendResult: TypeAlias = StoredEvent | LeftOut | NotFound | StaleClaim

# Lock the runs that the tokens may be of, then the sessions, as weakly as excludes a change of claim and a delete:
# batches of events do not wait for each other. A locked row is read as it is then, not as in the statement's snapshot,
# so a claim that ended while this waited is seen as ended.
_JUDGED = """
    WITH item AS MATERIALIZED (
        SELECT i.*,
            -- needs no lock: a run stays in its session, and goes with it; the session is compared outside of the
            -- condition, or the planner may read all runs of a session instead of one by its id
            (SELECT CASE WHEN n.session_id = i.session_id THEN n.run_id END
             FROM runs n WHERE n.run_id = i.wanted_run) AS named_run
        FROM unnest(CAST(:sessions AS text[]), CAST(:owners AS text[]), CAST(:tokens AS text[]),
                    CAST(:runs AS text[]), CAST(:keys AS text[]), CAST(:uids AS text[]))
            WITH ORDINALITY AS i(session_id, owner, claim_token, wanted_run, event_key, event_uid, place)
    ), at_work AS MATERIALIZED (
        SELECT run_id, session_id, claim_token FROM runs
        WHERE session_id = ANY(CAST(:sessions AS text[])) AND status IN $IN_HAND
    ), claim AS MATERIALIZED (
        SELECT session_id, run_id, status, claim_token, status IN $IN_HAND AS active
        FROM runs
        WHERE run_id = ANY(ARRAY(
            SELECT run_id FROM at_work
            UNION ALL
            -- late events of an ended run: search all runs of its session
            SELECT t.run_id FROM item i JOIN runs t ON t.session_id = i.session_id AND t.claim_token = i.claim_token
            WHERE (i.session_id, i.claim_token) NOT IN (
                SELECT session_id, claim_token FROM at_work WHERE claim_token IS NOT NULL)))
        ORDER BY run_id FOR KEY SHARE
    ), held AS MATERIALIZED (
        SELECT session_id, owner, incarnation, coalesce(last_sign_at < now() - interval '5 seconds', true) AS quiet
        FROM sessions
        -- after the runs: the lock order of all transactions
        WHERE session_id = ANY(CAST(:sessions AS text[])) AND (SELECT count(*) FROM claim) >= 0
        ORDER BY session_id FOR KEY SHARE
    ), judged AS MATERIALIZED (
        SELECT i.place, i.session_id, held.owner, held.quiet, active.run_id AS active_run, active.status,
            CASE WHEN i.claim_token IS NULL THEN coalesce(i.named_run, active.run_id) ELSE its.run_id END AS run_id,
            i.claim_token IS NULL OR its.run_id IS NOT NULL AS current,
            coalesce(held.incarnation || ':' || i.event_key, i.event_uid) AS event_uid
        FROM item i
        JOIN held ON held.session_id = i.session_id AND (i.owner IS NULL OR held.owner = i.owner)
        LEFT JOIN claim active ON active.session_id = i.session_id AND active.active
        LEFT JOIN claim its ON its.session_id = i.session_id AND its.claim_token = i.claim_token
    )
"""
_STORE = """
    , stored AS (
        INSERT INTO events (kind, session_id, frame, owner, run_id, event_type, event_uid)
        SELECT 'event', session_id, CAST((CAST(:frames AS text[]))[place] AS json), owner, run_id,
            (CAST(:types AS text[]))[place], event_uid
        FROM judged WHERE current ORDER BY place
        ON CONFLICT (event_uid) DO NOTHING RETURNING event_uid, id
    )
    SELECT place, session_id, quiet, active_run, status, current, event_uid, true AS kept, NULL AS id FROM judged
    UNION ALL
    SELECT NULL, NULL, NULL, NULL, NULL, NULL, event_uid, NULL, id FROM stored
"""
_APPEND = sql(_JUDGED + _STORE)
_APPEND_BOUNDED = sql(_JUDGED + STORE_BOUNDED)

_IDS = text("SELECT event_uid, id FROM events WHERE event_uid = ANY(CAST(:uids AS text[]))")

# Skip a locked session: a report or another batch of events is renewing its sign.
_SIGN = text("""
    UPDATE sessions s SET last_sign_at = clock_timestamp()
    FROM (SELECT session_id FROM sessions WHERE session_id = ANY(CAST(:sessions AS text[]))
          ORDER BY session_id FOR NO KEY UPDATE SKIP LOCKED) quiet
    WHERE s.session_id = quiet.session_id
""")


def append_events(conn: Connection, items: Sequence[NewEvent], *, run_events_max: int = 0) -> list[AppendResult]:
    """Store events in item order (PROTOCOL, Sessions); one with the key of a stored one is that one. Safe to repeat.

    An event belongs to the run whose token it carries; without a token to the run that it names, if that is one of the
    session; else to the run that is claimed, running or stopping at that moment; else to the session alone. NotFound
    for an unknown session, StaleClaim for a token that is not, or no longer, a run's of the session. LeftOut for what a
    run of ``run_events_max`` stored events (0: any number) may not add (``models.feed.event_counts``). One statement,
    in autocommit one round trip; one more each for what was stored before and for sessions long quiet.
    """
    visible = find_visible(conn, [(item.caller, item.session_id) for item in items])
    results: list[AppendResult] = [NotFound("session", item.session_id) for item in items]
    places = [place for place, item in enumerate(items) if is_visible(item.caller, item.session_id, visible)]
    judged, stored = _append(conn, [items[place] for place in places], run_events_max)
    ids = stored | _stored_before(conn, {one.event_uid for one in judged if one.current and one.kept} - stored.keys())
    for one in judged:
        results[places[one.place - 1]] = _result(one, ids)
    quiet = sorted({one.session_id for one in judged if one.current and one.quiet})
    if quiet:
        conn.execute(_SIGN, {"sessions": quiet})
    return results


def _result(judged: _Judged, ids: Mapping[str, int]) -> AppendResult:
    if not judged.current:
        return StaleClaim(judged.active_run or "", judged.status or "")
    return StoredEvent(ids[judged.event_uid]) if judged.kept else LeftOut()


def _stored_before(conn: Connection, uids: Collection[str]) -> dict[str, int]:
    if not uids:
        return {}
    ids = {row.event_uid: row.id for row in conn.execute(_IDS, {"uids": sorted(uids)})}
    if len(ids) < len(uids):
        msg = "an event that was stored before has been dropped just now"
        raise SerializationFailure(msg)
    return ids


def _append(conn: Connection, items: Sequence[NewEvent], run_events_max: int) -> tuple[list[_Judged], dict[str, int]]:
    if not items:
        return [], {}
    values = {
        "sessions": [item.session_id for item in items],
        "owners": [owner_filter(item.caller) for item in items],
        "tokens": [item.claim_token for item in items],
        "runs": [item.run_id for item in items],
        "keys": [item.event_key for item in items],
        "uids": [item.event_uid for item in items],
        "frames": [item.frame for item in items],
        "types": [item.event_type for item in items],
    }
    if run_events_max:
        rows = conn.execute(_APPEND_BOUNDED, values | bounds(run_events_max)).all()
    else:
        rows = conn.execute(_APPEND, values).all()
    judged = [_Judged(*row[:-1]) for row in rows if row.id is None]
    return judged, {row.event_uid: row.id for row in rows if row.id is not None}
