import json
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from psycopg.errors import SerializationFailure
from sqlalchemy import Connection, text

from models.claims.matching import PROCEDURAL
from models.claims.parking import drop_polls
from models.claims.script_syncs import lock_scripts_for_registration, queue_all_scripts
from models.core.errors import AgentNameTaken, DuplicateRunner, TooManyAgents
from models.core.limits import DEFAULT_LIMITS, Limits
from models.core.rounds import in_rounds_of_many
from models.runners.agents import AgentNames, lock_agent_names
from models.runners.departure import REPLACED, Ended, end_work, registrations, work_held_by
from models.runners.heartbeat import IS_STALE, told_interval
from models.runners.registration import CHANGING, Existing, Registration, Relation, identity, is_open_to, relation_to
from models.schema.sql import sql
from models.state.locks import LockedRows, lock_runs


@dataclass(frozen=True, slots=True)
class Registered:
    """Accepted registration: the runner's id and the heartbeat interval in seconds it is told.

    ``renumbered``: polls parked under the former number have to be told; ``parked_at``: the instances that hold those
    whose rows were deleted.
    """

    runner_id: str
    told_interval: int
    renumbered: bool = field(default=False, compare=False)
    parked_at: frozenset[str] = field(default=frozenset(), compare=False)


RegisterResult: TypeAlias = Registered | DuplicateRunner | AgentNameTaken | TooManyAgents


_LOOK = sql(
    """
    SELECT runner_id, registration, registration_uid, instance_id, owner, executor_type, tags, require_matching_tags,
        sends_tokens, lost_at, left_at, leave_told_at,
        $is_stale AS is_stale
    FROM runners WHERE runner_id = ANY(CAST(:runner_ids AS text[])) ORDER BY runner_id
    """,
    is_stale=IS_STALE,
)
_LOCK = text(_LOOK.text + " FOR NO KEY UPDATE")

_ADD = text("""
    INSERT INTO runners (runner_id, instance_id, owner, hostname, project_dir, executor_profile, executor_type,
        executor, tags, require_matching_tags, capacity, told_interval, registration_uid)
    SELECT g.runner_id, g.instance_id, g.owner, g.hostname, g.project_dir, g.executor_profile, g.executor_type,
        CAST(g.executor AS json), ARRAY(SELECT json_array_elements_text(g.tags)), g.require_matching_tags,
        g.capacity, g.told_interval, g.registration_uid
    FROM json_to_recordset(CAST(:given AS json))
        AS g(runner_id text, instance_id text, owner text, hostname text, project_dir text, executor_profile text,
             executor_type text, executor text, tags json, require_matching_tags boolean,
             capacity integer, told_interval integer, registration_uid text)
    ORDER BY g.runner_id
    ON CONFLICT (runner_id) DO NOTHING
    RETURNING runner_id
""")

# Give a new number to another process, and to another offer: every process caches what a number satisfies. Keep a leave
# that was not delivered yet, so that reconnecting does not undo it, and a drain in any case.
_RENEW = text("""
    UPDATE runners n
    SET instance_id = g.instance_id, owner = CASE WHEN g.keeps_owner THEN n.owner ELSE g.owner END,
        executor_type = g.executor_type, executor = CAST(g.executor AS json),
        tags = ARRAY(SELECT json_array_elements_text(g.tags)),
        require_matching_tags = g.require_matching_tags,
        capacity = CASE WHEN n.draining_since IS NULL THEN g.capacity ELSE 0 END,
        drained_capacity = CASE WHEN n.draining_since IS NOT NULL THEN g.capacity END,
        told_interval = g.told_interval, registration_uid = g.registration_uid,
        registration = CASE WHEN g.renumber THEN nextval('runner_registration') ELSE n.registration END,
        registered_at = CASE WHEN g.same THEN n.registered_at ELSE clock_timestamp() END,
        sends_tokens = g.same AND n.sends_tokens, sends_holding = g.same AND n.sends_holding,
        counted_beat_at = NULL, last_seen = clock_timestamp(), lost_at = NULL, left_at = NULL,
        leave_requested_at = CASE WHEN g.same AND n.leave_told_at IS NULL THEN n.leave_requested_at END,
        leave_told_at = NULL
    FROM json_to_recordset(CAST(:given AS json))
        AS g(runner_id text, instance_id text, owner text, executor_type text, executor text, tags json,
             require_matching_tags boolean, capacity integer, told_interval integer,
             registration_uid text, renumber boolean, same boolean, keeps_owner boolean)
    WHERE n.runner_id = g.runner_id
    RETURNING n.runner_id, n.registration
""")

# Move the runs of the same process to its new number.
_RENUMBER = (
    sql("""
        UPDATE runs r SET registration = g.registration,
            claimed_by_registration =
                CASE WHEN r.claimed_by_registration = r.registration THEN g.registration END
        FROM unnest(CAST(:runner_ids AS text[]), CAST(:numbers AS bigint[])) AS g(runner_id, registration)
        WHERE r.runner_id = g.runner_id AND r.status IN $IN_HAND
    """),
    text("""
        UPDATE sessions s SET registration = g.registration
        FROM unnest(CAST(:runner_ids AS text[]), CAST(:numbers AS bigint[])) AS g(runner_id, registration)
        WHERE s.runner_id = g.runner_id
    """),
    text("""
        UPDATE stop_commands c SET registration = g.registration
        FROM unnest(CAST(:runner_ids AS text[]), CAST(:numbers AS bigint[])) AS g(runner_id, registration)
        WHERE c.runner_id = g.runner_id
    """),
)

# Exclude the new number from the runs that the former one may not claim again.
_EXCLUDE_NEW_NUMBERS = sql("""
    UPDATE runs r SET not_for = array_append(r.not_for, g.registration)
    FROM unnest(CAST(:formers AS bigint[]), CAST(:numbers AS bigint[])) AS g(former, registration)
    WHERE r.run_id IN (
        SELECT b.run_id FROM runs b WHERE b.status = $PENDING AND b.not_for && CAST(:formers AS bigint[])
        ORDER BY b.run_id FOR NO KEY UPDATE)
      AND g.former = ANY(r.not_for)
""")


def register_runners(
    conn: Connection,
    items: Sequence[Registration],
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> list[RegisterResult]:
    """Register processes (PROTOCOL, Runners). Safe to repeat. DuplicateRunner while another process is online.

    AgentNameTaken when another runner provides an agent of a name, TooManyAgents when the owner's runners would provide
    too many; such a registration changes nothing. An accepted one replaces all agents of its runner, and a procedural
    runner is to fetch all scripts.

    The same instance reconnects and keeps its runs. Another process takes the place of a stale, lost or leaving one,
    whose registration ends in this transaction: its claims are released, its running runs are lost. Another owner's
    registration with the same properties neither hinders nor is hindered.
    """
    results: dict[int, RegisterResult] = {}
    names = lock_agent_names(conn, items)
    lock_scripts_for_registration(conn, [item.executor_type for item in items])
    for ordinals in in_rounds_of_many(items, _touches, lambda _: []):
        chosen = [items[ordinal] for ordinal in ordinals]
        results.update(zip(ordinals, _register_round(conn, chosen, limits, names), strict=True))
    names.write(conn)
    queue_all_scripts(conn, _procedural(items, results))
    return [results[ordinal] for ordinal in range(len(items))]


def _procedural(items: Sequence[Registration], results: Mapping[int, RegisterResult]) -> set[str]:
    return {
        result.runner_id
        for place, result in results.items()
        if isinstance(result, Registered) and items[place].executor_type == PROCEDURAL
    }


def _touches(item: Registration) -> list[Hashable]:
    return [item.runner_id, *(("agent", agent.name) for agent in item.agents)]


def _register_round(
    conn: Connection, items: Sequence[Registration], limits: Limits, names: AgentNames
) -> list[RegisterResult]:
    possible_ids = {runner_id for item in items for runner_id in (item.runner_id, item.own_id) if runner_id is not None}
    existing = {
        row.runner_id: Existing(*row)
        for row in conn.execute(_LOOK, {"runner_ids": sorted(possible_ids), "stale_after": limits.stale_after})
    }
    ids = [identity(item, existing) for item in items]
    refused = {
        runner_id: reason
        for runner_id, item in zip(ids, items, strict=True)
        if (reason := names.refused(runner_id, item)) is not None
    }
    pairs = sorted(zip(ids, items, strict=True), key=lambda pair: pair[0])
    chosen = {runner_id: item for runner_id, item in pairs if runner_id not in refused}
    reading = {"runner_ids": list(chosen), "stale_after": limits.stale_after}
    before = {
        runner_id: relation_to(existing[runner_id], item) for runner_id, item in chosen.items() if runner_id in existing
    }
    locked = _lock_former_work(conn, [runner_id for runner_id, relation in before.items() if relation in CHANGING])
    added: set[str] = set()
    new = {runner_id: item for runner_id, item in chosen.items() if runner_id not in before}
    if new:
        added = set(conn.execute(_ADD, _given(new, limits)).scalars())
    rows = {row.runner_id: Existing(*row) for row in conn.execute(_LOCK, reading) if row.runner_id not in added}
    if not all(is_open_to(chosen[runner_id], row) for runner_id, row in rows.items()):
        msg = "another owner's runner was first to have the id"
        raise SerializationFailure(msg)
    relations = {runner_id: relation_to(row, chosen[runner_id]) for runner_id, row in rows.items()}
    if any(relation in CHANGING and before.get(runner_id) not in CHANGING for runner_id, relation in relations.items()):
        msg = "a runner fell silent between two looks, so its runs are not locked"
        raise SerializationFailure(msg)
    parked = _renew(conn, chosen, rows, relations, limits)
    _end_former(
        conn,
        locked,
        {
            runner_id: rows[runner_id]
            for runner_id, relation in relations.items()
            if relation is Relation.ANOTHER_PROCESS
        },
    )
    for runner_id, item in chosen.items():
        if relations.get(runner_id) is not Relation.DUPLICATE:
            names.give(runner_id, item)
    return [
        refused.get(runner_id) or _answer(runner_id, item, relations.get(runner_id), parked, limits)
        for runner_id, item in zip(ids, items, strict=True)
    ]


def _answer(
    runner_id: str,
    item: Registration,
    relation: Relation | None,
    parked: Mapping[str, frozenset[str]],
    limits: Limits,
) -> RegisterResult:
    if relation is Relation.DUPLICATE:
        return DuplicateRunner(runner_id, item.hostname, item.project_dir, item.executor_profile)
    return Registered(
        runner_id,
        told_interval(item.instance_id, limits),
        renumbered=relation in CHANGING,
        parked_at=parked.get(runner_id, frozenset()),
    )


def _lock_former_work(conn: Connection, runner_ids: Sequence[str]) -> LockedRows:
    if not runner_ids:
        return LockedRows()
    run_ids, session_ids = work_held_by(conn, runner_ids)
    return lock_runs(conn, run_ids, session_ids)


def _renew(
    conn: Connection,
    chosen: Mapping[str, Registration],
    rows: Mapping[str, Existing],
    relations: Mapping[str, Relation],
    limits: Limits,
) -> dict[str, frozenset[str]]:
    """Update the changed registrations; return the instances that hold the deleted polls of former ones, by runner."""
    renewed = {
        runner_id: chosen[runner_id]
        for runner_id, relation in relations.items()
        if relation is Relation.SAME_PROCESS or relation in CHANGING
    }
    if not renewed:
        return {}
    same = [runner_id for runner_id in renewed if relations[runner_id] is not Relation.ANOTHER_PROCESS]
    renumbered = {runner_id for runner_id in renewed if relations[runner_id] in CHANGING}
    parameters = _given(renewed, limits, renumbered, frozenset(same))
    numbers = {row.runner_id: row.registration for row in conn.execute(_RENEW, parameters)}
    parked = drop_polls(conn, renumbered)
    continuing = [runner_id for runner_id in same if runner_id in renumbered]
    if continuing:
        _renumber_work(conn, {runner_id: (rows[runner_id], numbers[runner_id]) for runner_id in continuing})
    return parked


def _renumber_work(conn: Connection, renumbered: Mapping[str, tuple[Existing, int]]) -> None:
    numbers = [number for _, number in renumbered.values()]
    for statement in _RENUMBER:
        conn.execute(statement, {"runner_ids": list(renumbered), "numbers": numbers})
    tokenless = [(row.registration, number) for row, number in renumbered.values() if not row.sends_tokens]
    if tokenless:
        conn.execute(
            _EXCLUDE_NEW_NUMBERS,
            {"formers": [former for former, _ in tokenless], "numbers": [number for _, number in tokenless]},
        )


def _end_former(conn: Connection, locked: LockedRows, former: Mapping[str, Existing]) -> None:
    numbers = registrations(locked)
    ended = {
        number: Ended(REPLACED, sends_tokens=row.sends_tokens and number == row.registration)
        for runner_id, row in former.items()
        for number in numbers.get(runner_id, ())
    }
    if ended:
        end_work(conn, locked, ended)


def _given(
    chosen: Mapping[str, Registration],
    limits: Limits,
    renumbered: Collection[str] = (),
    same: Collection[str] = (),
) -> dict[str, str]:
    rows = [
        {
            "runner_id": runner_id,
            "instance_id": item.instance_id,
            "owner": item.owner,
            "hostname": item.hostname,
            "project_dir": item.project_dir,
            "executor_profile": item.executor_profile,
            "executor_type": item.executor_type,
            "executor": item.executor,
            "tags": sorted(set(item.tags)),
            "require_matching_tags": item.require_matching_tags,
            "capacity": item.capacity,
            "told_interval": told_interval(item.instance_id, limits),
            "registration_uid": item.registration_uid,
            "renumber": runner_id in renumbered,
            "same": runner_id in same,
            # Keep the owner when an admin reconnects another's process.
            "keeps_owner": runner_id in same and item.subject is None,
        }
        for runner_id, item in chosen.items()
    ]
    return {"given": json.dumps(rows)}
