"""Submits the plain case in one statement: starts without a parent, of new sessions and with known demands.

Each rule is that of ``models.runs.submit``, to which a property test holds this form (docs/decisions/0045).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection

from models.core.ids import uuid7
from models.core.plain import NOT_PLAIN, NotPlain
from models.core.statuses import RunStatus, RunType
from models.runs.submission import NewRun, Submitted, demands_of_run, note_submitted
from models.runs.submit import OF_SESSION, values_of
from models.schema.columns import array_rows
from models.schema.driver import fetch_all
from models.schema.sql import sql
from models.schema.tables import idempotency_keys, runs, sessions
from models.state.event_sql import RECORDED, run_updated_frame, session_frame
from models.state.holds import ANY_SELECTOR

_NULL = "CAST(NULL AS text)"
_PENDING = f"'{RunStatus.PENDING}'"
_OF_RUN = (
    "run_id",
    "session_id",
    "owner",
    "agent_name",
    "parameters",
    "project_dir",
    "execution_mode",
    "scope",
    "labels",
    "priority",
    "max_attempts",
    "run_timeout_seconds",
    "no_match_timeout_seconds",
    "traceparent",
)
_OF_KEY = ("caller", "key", "body_hash", "run_id", "session_id")
_OF_ITEM = {
    "former_caller": "text",
    "not_before": "timestamptz",
    "delay": "double precision",
    "demands_place": "integer",
}


def _given() -> dict[str, str]:
    """Return the lists of the arrays of the items, whose parameters have the names of their columns."""
    tables = ((runs, _OF_RUN), (sessions, ("incarnation",)), (idempotency_keys, ("caller", "key", "body_hash")))
    arrays = {name: array_rows("n", table, [name])["arrays"] for table, names in tables for name in names}
    arrays |= {name: f"CAST(:{name} AS {kind}[])" for name, kind in _OF_ITEM.items()}
    return {
        "columns": ", ".join(arrays),
        "given": ", ".join(f"{array} AS {name}" for name, array in arrays.items()),
        "arrays": ", ".join(f"given.{name}" for name in arrays),
    }


_REGISTRY_AGENT: Final = "(SELECT e.name FROM registry_entries e WHERE e.kind = 'agents' AND e.name = n.agent_name)"
# Insert keys, then sessions, then runs, each in the order of its index: the order of locks of all submissions. Each
# insert reads all rows of the one before by a hash of them, whatever number of items the planner expects, and waits
# for the transaction that inserts the same row. A key that is stored leaves its item out before anything of it is
# written. A profile used within the hour is safe from upkeep, as in ``models.claims.matching``; an item whose agent a
# runner or the registry provides gets none, so that it is left to the verb, and so does each while holds of several
# runs exist. The arrays come by way of a CTE, so that the planner cannot see their lengths: it then keeps one plan
# instead of making one for each call.
_SUBMIT = sql(
    """
    WITH given AS MATERIALIZED (
        SELECT $given, CAST(:hashes AS text[]) AS hashes, CAST(:demands AS text[]) AS demands
    ), item AS MATERIALIZED (
        SELECT n.*, coalesce(n.not_before, now() + make_interval(secs => n.delay)) AS due_at,
            given.demands[n.demands_place] AS demands,
            CASE WHEN $any_selector IS NULL
                      AND (n.agent_name IS NULL
                           OR (SELECT a.name FROM runner_agents a WHERE a.name = n.agent_name) IS NULL
                              AND $registry_agent IS NULL)
                 THEN (ARRAY(SELECT (SELECT p.profile_id FROM demand_profiles p
                                     WHERE p.hash = d.hash AND p.last_used_at > now() - interval '1 hour')
                             FROM given, unnest(given.hashes) WITH ORDINALITY AS d(hash, place)
                             ORDER BY d.place))[n.demands_place] END AS profile_id
        FROM given, unnest($arrays) WITH ORDINALITY AS n($columns, place)
    ), taken AS (
        INSERT INTO idempotency_keys ($key_columns)
        SELECT $key_values FROM item i
        WHERE i.key IS NOT NULL AND i.profile_id IS NOT NULL
          AND (SELECT f.run_id FROM idempotency_keys f WHERE f.caller = i.former_caller AND f.key = i.key) IS NULL
        ORDER BY i.caller, i.key
        ON CONFLICT (caller, key) DO NOTHING
        RETURNING caller, key
    ), begun AS (
        INSERT INTO sessions ($session_columns, status, first_event_id, next_run)
        SELECT $session_values, $PENDING, e.next_id, 2
        FROM item i
        CROSS JOIN (SELECT last_value + CASE WHEN is_called THEN 1 ELSE 0 END AS next_id FROM events_id_seq) e
        WHERE i.profile_id IS NOT NULL
          AND (i.key IS NULL OR (i.caller, i.key) IN (SELECT t.caller, t.key FROM taken t))
        ORDER BY i.session_id
        ON CONFLICT (session_id) DO NOTHING
        RETURNING session_id
    ), made AS MATERIALIZED (
        -- IS TRUE keeps the planner from a join, by nested loops if it expects few rows
        SELECT i.* FROM item i WHERE (i.session_id IN (SELECT b.session_id FROM begun b)) IS TRUE
    ), started AS (
        INSERT INTO runs ($run_columns, session_seq, type, demands, profile_id, not_before, ready, match_deadline_at)
        SELECT $run_values, 1, $start, CAST(i.demands AS json), i.profile_id, i.due_at,
            i.due_at IS NULL OR i.due_at <= now(),
            CASE WHEN i.due_at IS NULL OR i.due_at <= now()
                 THEN now() + make_interval(secs => i.no_match_timeout_seconds) END
        FROM made i ORDER BY i.run_id
    ), new_events (place, kind, session_id, frame, owner, run_id, event_type) AS (
        SELECT i.place, 'session_created', i.session_id, $session_frame, i.owner, $null, $null FROM made i
        UNION ALL
        SELECT i.place + :items, 'run_updated', i.session_id, $run_frame, i.owner, i.run_id, $null FROM made i
    ), $recorded
    SELECT place FROM made
    """,
    **_given(),
    key_columns=", ".join(_OF_KEY),
    key_values=array_rows("i", idempotency_keys, _OF_KEY)["values"],
    session_columns=", ".join(OF_SESSION),
    session_values=array_rows("i", sessions, OF_SESSION)["values"],
    run_columns=", ".join(_OF_RUN),
    run_values=array_rows("i", runs, _OF_RUN)["values"],
    start=f"'{RunType.START}'",
    null=_NULL,
    session_frame=session_frame(
        "i",
        status=_PENDING,
        created_at="now()",
        last_resumed_at="CAST(NULL AS timestamptz)",
        parent_session_id=_NULL,
        executor_session_id=_NULL,
        executor_profile=_NULL,
        hostname=_NULL,
        depth="0",
    ),
    run_frame=run_updated_frame(
        run_id="i.run_id", session_id="i.session_id", status=_PENDING, runner_id=_NULL, attempt="0", error=_NULL
    ),
    recorded=RECORDED,
    any_selector=ANY_SELECTOR,
    registry_agent=_REGISTRY_AGENT,
)


def submit_plain(conn: Connection, items: Sequence[NewRun]) -> list[Submitted | NotPlain]:
    """Create the runs and sessions of the plain items in one statement; NOT_PLAIN for each other, left unchanged.

    Plain is a start without a parent or a retry policy, no replay, of a session id that was free and that no other item
    names, whose demands have a profile used within the hour and whose parameters are a prompt; an item that names an
    agent only if neither a runner nor the registry provides it; an item with an idempotency key only if its session id
    is ours and its key is new and no other item's. An item whose first commit was not heard of is not plain any more:
    ``submit_runs`` answers it.
    """
    results: list[Submitted | NotPlain] = [NOT_PLAIN] * len(items)
    places = _plain_places(items)
    if places:
        for (place,) in fetch_all(conn, _SUBMIT, _parameters([items[place] for place in places])):
            item = items[places[place - 1]]
            results[places[place - 1]] = Submitted(item.run_id, item.own_session)
    note_submitted(conn, items, results)
    return results


def _plain_places(items: Sequence[NewRun]) -> list[int]:
    named = Counter(item.own_session for item in items)
    named.update(item.parent_session_id for item in items if item.parent_session_id is not None)
    keys = Counter(item.key for item in items if item.idempotency_key is not None)
    return [
        place
        for place, item in enumerate(items)
        if item.type is RunType.START
        and item.parent_session_id is None
        and item.replay_of is None
        and item.prompt_only
        and item.satisfied_schema is None
        and item.retry is None
        and named[item.own_session] == 1
        # The key of a session id that is taken would have to be removed again.
        and (item.idempotency_key is None or (item.session_id is None and keys[item.key] == 1))
    ]


def _parameters(items: Sequence[NewRun]) -> dict[str, Any]:
    places: dict[str, int] = {}
    texts: list[str] = []
    demands_places = []
    for item in items:
        demands = demands_of_run(item, None)
        place = places.setdefault(demands.hash, len(places) + 1)
        if place > len(texts):
            texts.append(demands.as_json())
        demands_places.append(place)
    keyed = any(item.idempotency_key is not None for item in items)
    values: dict[str, Any] = {
        **values_of(items),
        "incarnation": [uuid7() for _ in items],
        "owner": [item.caller.owner for item in items],
        "agent_name": [item.agent_name for item in items],
        "project_dir": [item.project_dir for item in items],
        "scope": [item.scope for item in items],
        "caller": [item.caller.key_space for item in items] if keyed else None,
        "key": [item.idempotency_key for item in items] if keyed else None,
        "body_hash": [item.body_hash or "" for item in items] if keyed else None,
        "former_caller": [item.caller.former_key_space for item in items] if keyed else None,
        "demands_place": demands_places,
        "demands": texts,
        "hashes": list(places),
        "items": len(items),
    }
    # Nothing is shorter than a list of nothing: ``unnest`` pads it.
    return {name: None if _is_empty(given) else given for name, given in values.items()}


def _is_empty(given: Any) -> bool:
    return isinstance(given, list) and given.count(None) == len(given)
