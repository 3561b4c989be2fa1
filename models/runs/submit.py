import json
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, text

from models.claims.matching import Demands, ensure_profiles
from models.core.errors import CoordinatorError, TooManyDemands
from models.core.ids import uuid7
from models.core.retries import write_policy
from models.core.rounds import in_rounds_of_many
from models.core.statuses import RunType
from models.registries.agents_of_runs import read_registry_agents
from models.runs.idempotency import answer_repeats, drop_keys
from models.runs.parents import ancestors, heights
from models.runs.submission import (
    LockedState,
    NewRun,
    Plan,
    RunAgent,
    Submitted,
    agent_name_of,
    agent_of,
    changes_parent,
    demands_of_run,
    note_submitted,
    plan_run,
)
from models.schema.columns import array_rows
from models.schema.sql import sql
from models.schema.tables import runs, sessions
from models.state.agents import read_agents
from models.state.events_outbox import record_events, run_created, session_updated
from models.state.holds import is_held
from models.state.locked_rows import LockedSession
from models.state.locks import lock_sessions, read_sessions_unlocked
from models.state.process_places import with_process_places
from models.state.session_status import SessionChange, update_session_status
from models.state.sessions import SESSION_COLUMNS_OF_S, Session, as_session
from models.state.transitions import sessions_updated
from models.state.visibility import find_visible

Result = Submitted | CoordinatorError
NO_VARIABLES: Final[Mapping[str, str]] = {}

OF_SESSION = ("session_id", "incarnation", "owner", "project_dir", "agent_name", "scope")

# Hide by first_event_id the remains of a former session of the same id: its events all have smaller ids.
_BEGIN = sql(
    """
    INSERT INTO sessions AS s ($columns, status, first_event_id, next_run)
    SELECT $values, $PENDING, e.next_id, 2
    FROM unnest($arrays) AS n($columns)
    CROSS JOIN (SELECT last_value + CASE WHEN is_called THEN 1 ELSE 0 END AS next_id FROM events_id_seq) e
    ORDER BY n.session_id
    ON CONFLICT (session_id) DO NOTHING
    RETURNING $session
    """,
    session=SESSION_COLUMNS_OF_S,
    **array_rows("n", sessions, OF_SESSION),
)

_KNOWN = text("SELECT run_id FROM runs WHERE run_id = ANY(CAST(:run_ids AS text[]))")

_DROP_SESSIONS = text("DELETE FROM sessions WHERE session_id = ANY(CAST(:sessions AS text[]))")

_GIVEN = (
    "run_id",
    "session_id",
    "session_seq",
    "owner",
    "type",
    "agent_name",
    "parameters",
    "project_dir",
    "parent_session_id",
    "execution_mode",
    "scope",
    "demands",
    "labels",
    "profile_id",
    "priority",
    "max_attempts",
    "run_timeout_seconds",
    "no_match_timeout_seconds",
    "replay_of",
    "traceparent",
    "retry",
)
# Make a start ready unless it is delayed or held; readiness of a resume is left to update_session_status.
_INSERT_RUNS = sql(
    """
    INSERT INTO runs ($columns, not_before, ready, match_deadline_at)
    SELECT $values, due.at, free.ready,
        CASE WHEN free.ready THEN now() + make_interval(secs => n.no_match_timeout_seconds) END
    FROM unnest($arrays, CAST(:not_before AS timestamptz[]), CAST(:delay AS double precision[]),
                CAST(:starts AS boolean[]))
        AS n($columns, not_before, delay, starts)
    CROSS JOIN LATERAL (SELECT coalesce(n.not_before, now() + make_interval(secs => n.delay)) AS at) due
    CROSS JOIN LATERAL (
        SELECT n.starts AND (due.at IS NULL OR due.at <= now()) AND NOT $is_held AS ready OFFSET 0
    ) free
    ORDER BY n.run_id
    ON CONFLICT (run_id) DO NOTHING
    RETURNING run_id
    """,
    **array_rows("n", runs, _GIVEN),
    is_held=is_held("n"),
)

# Write what a start inherits from its parent, and what a resume changes.
_FILL = sql(
    """
    UPDATE sessions s
    SET next_run = s.next_run + CASE WHEN f.starts THEN 0 ELSE 1 END, scope = coalesce(CAST(f.scope AS json), s.scope),
        owner = f.owner, depth = f.depth,
        parent_session_id = CASE WHEN f.starts THEN f.parent_session_id ELSE s.parent_session_id END
    FROM unnest(CAST(:sessions AS text[]), CAST(:scopes AS text[]), CAST(:owners AS text[]),
                CAST(:depths AS integer[]), CAST(:parents AS text[]), CAST(:starts AS boolean[]))
        AS f(session_id, scope, owner, depth, parent_session_id, starts)
    WHERE s.session_id = f.session_id AND s.session_id = ANY(CAST(:sessions AS text[]))
    RETURNING $session
    """,
    session=SESSION_COLUMNS_OF_S,
)


_INSERT_BLUEPRINTS = text("""
    INSERT INTO run_blueprints (run_id, blueprint)
    SELECT b.run_id, CAST(b.blueprint AS json)
    FROM unnest(CAST(:run_ids AS text[]), CAST(:blueprints AS text[])) AS b(run_id, blueprint)
    ORDER BY b.run_id
    ON CONFLICT (run_id) DO NOTHING
""")


class _Context(NamedTuple):
    max_depth: int
    environment: Mapping[str, str]


def submit_runs(
    conn: Connection,
    items: Sequence[NewRun],
    *,
    max_depth: int = 10,
    most_demands: int = 0,
    environment: Mapping[str, str] = NO_VARIABLES,
) -> list[Result]:
    """Create the runs, and the sessions of starts (PROTOCOL, Runs). Safe to repeat with the same ids.

    One result per item, in order. Errors: SessionExists, NotFound (session, parent session), ParentIsDescendant,
    ParentOfAnotherOwner, TooDeep, KeyReused, TooManyDemands (new ones of an owner that has ``most_demands`` distinct
    sets already; 0: any number), and of agents SchemaUnchecked, PromptRequired, AgentNotResumable and those of
    blueprints, whose ``env`` has the variables of ``environment``. A failed item leaves nothing behind, its idempotency
    key included. Items that concern the same session or key are applied in rounds, in order.
    """
    results: dict[int, Result] = {}
    resumed = _resumed(conn, items)
    agents = agents_by_name(conn, _names(items, resumed))
    context = _Context(max_depth, environment)
    wanted = _wanted_demands(items, resumed, agents)
    profiles = ensure_profiles(conn, wanted, [item.caller.owner for item in items], most_demands)
    for places in in_rounds_of_many(items, _touches, _reads):
        allowed = [place for place in places if wanted[place].hash in profiles]
        results.update((place, TooManyDemands(most_demands)) for place in places if place not in allowed)
        batch = [items[place] for place in allowed]
        results.update(zip(allowed, _submit_round(conn, batch, profiles, context, agents), strict=True))
    answers = [results[place] for place in range(len(items))]
    note_submitted(conn, items, answers)
    return answers


def _resumed(conn: Connection, items: Iterable[NewRun]) -> dict[str, LockedSession]:
    names = {item.own_session for item in items if item.type is RunType.RESUME}
    return with_process_places(conn, read_sessions_unlocked(conn, names))


def agents_by_name(conn: Connection, names: Collection[str]) -> dict[str, RunAgent | None]:
    """Return the agent of each name, one of the registry before one of a runner, or None."""
    return {**read_agents(conn, names), **read_registry_agents(conn, names)}


def _touches(item: NewRun) -> list[Hashable]:
    return [item.own_session] if item.key is None else [item.own_session, item.key]


def _reads(item: NewRun) -> list[Hashable]:
    return [] if item.parent_session_id is None else [item.parent_session_id]


def _names(items: Iterable[NewRun], sessions: Mapping[str, LockedSession]) -> set[str]:
    """Return the names of the agents that the items look up."""
    looking = [item for item in items if item.looks_up_agent or item.keeps_demands]
    return {name for item in looking if (name := agent_name_of(item, sessions.get(item.own_session))) is not None}


def _wanted_demands(
    items: Sequence[NewRun], resumed: Mapping[str, LockedSession], agents: Mapping[str, RunAgent | None]
) -> list[Demands]:
    sessions = [resumed.get(item.own_session) for item in items]
    return [
        demands_of_run(item, session, agent_of(item, session, agents))
        for item, session in zip(items, sessions, strict=True)
    ]


def _submit_round(
    conn: Connection,
    items: Sequence[NewRun],
    profiles: dict[str, int],
    context: _Context,
    agents: Mapping[str, RunAgent | None],
) -> list[Result]:
    answered = answer_repeats(conn, items)
    fresh = [item for item in items if item.run_id not in answered]
    starts = [item for item in fresh if item.type is RunType.START]
    # Insert new sessions before the locks: of two transactions that insert the same one the second waits with no lock.
    created = _begin_sessions(conn, starts)
    state = _lock(conn, fresh, created, context, agents)
    repeated = _known_runs(conn, [item.run_id for item in starts if item.own_session not in created])
    decisions = {item.run_id: plan_run(item, state) for item in fresh if item.run_id not in repeated}
    refused = {run_id: decision for run_id, decision in decisions.items() if not isinstance(decision, Plan)}
    _forget(conn, [item for item in fresh if item.run_id in refused], created)
    _write(conn, [plan for plan in decisions.values() if isinstance(plan, Plan)], profiles, created)
    answers: dict[str, Result] = {**answered, **refused}
    return [answers.get(item.run_id) or _submitted(item, decisions.get(item.run_id)) for item in items]


def _submitted(item: NewRun, decision: Plan | CoordinatorError | None) -> Submitted:
    demands = decision.demands if isinstance(decision, Plan) else None
    return Submitted(item.run_id, item.own_session, demands=demands)


def _lock(
    conn: Connection,
    items: Sequence[NewRun],
    created: dict[str, Session],
    context: _Context,
    agents: Mapping[str, RunAgent | None],
) -> LockedState:
    resumed = [item.own_session for item in items if item.type is RunType.RESUME]
    parents = [item.parent_session_id for item in items if item.parent_session_id is not None]
    locked = lock_sessions(conn, {*resumed, *parents})
    moved = [item.own_session for item in items if changes_parent(item, locked.get(item.own_session))]
    named = [(item.caller, name) for item in items for name in (item.own_session, item.parent_session_id or "")]
    # A session may have got another agent before it was locked.
    more = _names([item for item in items if item.type is RunType.RESUME], locked) - agents.keys()
    # Its process may have ended, or come to be idle, before the session was locked.
    placed = with_process_places(conn, {name: locked[name] for name in resumed if name in locked})
    return LockedState(
        created,
        {**locked, **placed},
        ancestors(conn, [parent for parent in parents if parent in locked]),
        heights(conn, moved, context.max_depth),
        find_visible(conn, named),
        context.max_depth,
        {**agents, **agents_by_name(conn, more)},
        context.environment,
    )


def _forget(conn: Connection, refused: Sequence[NewRun], created: Collection[str]) -> None:
    bare = sorted(item.own_session for item in refused if item.own_session in created)
    if bare:
        conn.execute(_DROP_SESSIONS, {"sessions": bare})
    drop_keys(conn, [item.key for item in refused if item.key is not None])


def _write(conn: Connection, plans: Sequence[Plan], profiles: dict[str, int], created: dict[str, Session]) -> None:
    if not plans:
        return
    # Add profiles for sessions whose affinity changed after it was read.
    changed = [plan.demands for plan in plans if plan.demands.hash not in profiles]
    profiles = profiles | ensure_profiles(conn, changed) if changed else profiles
    fresh = _insert_runs(conn, plans, [profiles[plan.demands.hash] for plan in plans])
    written = [plan for plan in plans if plan.item.run_id in fresh]
    _insert_blueprints(conn, written)
    resumed = [plan for plan in written if plan.item.own_session not in created]
    filled = [
        plan for plan in written if plan.item.own_session not in created or plan.item.parent_session_id is not None
    ]
    begun = {**created, **_fill_sessions(conn, filled)}
    rows = [
        session_updated(begun[plan.item.own_session], "session_created")
        for plan in written
        if plan.item.own_session in created
    ]
    rows += sessions_updated(update_session_status(conn, [SessionChange(plan.item.own_session) for plan in resumed]))
    rows += [run_created(plan.item.run_id, plan.item.own_session, plan.owner) for plan in written]
    record_events(conn, rows)


def _begin_sessions(conn: Connection, starts: Sequence[NewRun]) -> dict[str, Session]:
    """Insert the sessions to be started, without parents; return those whose ids were free."""
    if not starts:
        return {}
    rows = conn.execute(
        _BEGIN,
        {
            "session_id": [item.own_session for item in starts],
            "incarnation": [uuid7() for _ in starts],
            "owner": [item.start_owner for item in starts],
            "project_dir": [item.project_dir for item in starts],
            "agent_name": [item.agent_name for item in starts],
            "scope": [item.scope for item in starts],
        },
    )
    return {row.session_id: as_session(row) for row in rows}


def _known_runs(conn: Connection, run_ids: Collection[str]) -> set[str]:
    if not run_ids:
        return set()
    return set(conn.execute(_KNOWN, {"run_ids": sorted(run_ids)}).scalars())


def values_of(items: Sequence[NewRun]) -> dict[str, list[Any]]:
    """Return the columns of runs that the items alone decide, by the names of both forms' parameters."""
    return {
        "run_id": [item.run_id for item in items],
        "session_id": [item.own_session for item in items],
        "parameters": [item.parameters for item in items],
        "execution_mode": [str(item.execution_mode) for item in items],
        "labels": [json.dumps(item.labels) if item.labels else None for item in items],
        "priority": [item.priority for item in items],
        "max_attempts": [item.max_attempts for item in items],
        "run_timeout_seconds": [item.run_timeout_seconds for item in items],
        "no_match_timeout_seconds": [item.no_match_timeout_seconds for item in items],
        "not_before": [item.not_before for item in items],
        "delay": [item.delay_seconds for item in items],
        "traceparent": [item.traceparent for item in items],
    }


def _insert_runs(conn: Connection, plans: Sequence[Plan], profile_ids: Sequence[int]) -> set[str]:
    items = [plan.item for plan in plans]
    rows = conn.execute(
        _INSERT_RUNS,
        {
            **values_of(items),
            "session_seq": [plan.session_seq for plan in plans],
            "owner": [plan.owner for plan in plans],
            "type": [item.type.value for item in items],
            "agent_name": [plan.agent_name for plan in plans],
            "project_dir": [plan.project_dir for plan in plans],
            "parent_session_id": [item.parent_session_id for item in items],
            "scope": [plan.scope for plan in plans],
            "demands": [plan.demands.as_json() for plan in plans],
            "profile_id": list(profile_ids),
            "replay_of": [item.replay_of for item in items],
            "retry": [None if item.retry is None else write_policy(item.retry) for item in items],
            "starts": [item.type.value == "start_session" for item in items],
        },
    )
    return set(rows.scalars())


def _insert_blueprints(conn: Connection, plans: Sequence[Plan]) -> None:
    blueprints = {plan.item.run_id: plan.blueprint for plan in plans if plan.blueprint is not None}
    if blueprints:
        conn.execute(_INSERT_BLUEPRINTS, {"run_ids": list(blueprints), "blueprints": list(blueprints.values())})


def _fill_sessions(conn: Connection, plans: Sequence[Plan]) -> Mapping[str, Session]:
    if not plans:
        return {}
    rows = conn.execute(
        _FILL,
        {
            "sessions": [plan.item.own_session for plan in plans],
            "scopes": [plan.scope for plan in plans],
            "owners": [plan.owner for plan in plans],
            "depths": [plan.depth for plan in plans],
            "parents": [plan.item.parent_session_id for plan in plans],
            "starts": [plan.item.type.value == "start_session" for plan in plans],
        },
    )
    return {row.session_id: as_session(row) for row in rows}
