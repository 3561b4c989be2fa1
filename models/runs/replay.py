"""Replays: submits an ended run again, in a new session, as it was submitted but for the fields that are changed."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Row, text

from models.auth.audit import Act, AuditedAct, audited_act, record_acts
from models.claims.matching import PROCEDURAL, Demands
from models.core.callers import Caller
from models.core.errors import CoordinatorError, KeyReused, NotFound, RunNotEnded
from models.core.retries import read_policy
from models.core.statuses import TERMINAL, RunType
from models.runs.idempotency import read_keys
from models.runs.prompts import is_prompt
from models.runs.submission import FIRE_LABEL, SCHEDULE_LABEL, NewRun, Submitted
from models.runs.submit import NO_VARIABLES, submit_runs
from models.state.visibility import Visible, can_view, find_visible

ReplayResult: TypeAlias = Submitted | CoordinatorError


@dataclass(frozen=True, slots=True)
class Replay:
    """Request to submit an ended run again, with ids that were made before the first try.

    ``changes`` are fields of ``NewRun`` with JSON values: ``parameters`` and ``scope`` as JSON text, demands as an
    object, a time as ISO 8601. ``prompt_only`` and ``satisfied_schema`` as in ``NewRun``, of changed parameters.
    """

    caller: Caller
    run_id: str
    new_run_id: str
    new_session_id: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None
    body_hash: str | None = None
    traceparent: str | None = None
    prompt_only: bool = True
    satisfied_schema: str | None = None

    @property
    def key(self) -> tuple[str, str] | None:
        return None if self.idempotency_key is None else (self.caller.key_space, self.idempotency_key)


# A parent that was deleted has made roots of its children: their replays are roots, too.
_ORIGINALS: Final = text("""
    SELECT r.run_id, r.session_id, r.owner, r.status, r.type, r.agent_name, CAST(r.parameters AS text) AS parameters,
        r.project_dir, p.session_id AS parent_session_id, r.execution_mode, CAST(r.scope AS text) AS scope,
        CAST(r.demands AS text) AS demands, r.labels, r.priority, r.max_attempts, r.run_timeout_seconds,
        r.no_match_timeout_seconds, CAST(r.retry AS text) AS retry,
        (SELECT true FROM run_blueprints b WHERE b.run_id = r.run_id) IS TRUE AS has_blueprint
    FROM runs r
    LEFT JOIN sessions p ON p.session_id = r.parent_session_id AND p.created_at <= r.created_at
        AND p.owner IS NOT DISTINCT FROM r.owner
    WHERE r.run_id = ANY(CAST(:run_ids AS text[]))
""")
_COPIED: Final = (
    "parameters",
    "agent_name",
    "project_dir",
    "parent_session_id",
    "scope",
    "execution_mode",
    "priority",
    "max_attempts",
    "run_timeout_seconds",
    "no_match_timeout_seconds",
)
# Without a change of these a replay demands what its original did, whatever agents there are now; its blueprint is made
# of the agent as it is now, since it names the run and the session.
_OF_AGENT: Final = frozenset({"agent_name", "parameters", "additional_demands"})
# Of a resume these say where its session lives; the new session lives nowhere yet. Of one at the runner of a procedural
# agent, a callback, they say which runner that is.
_AFFINITY: Final = frozenset({"hostname", "executor_profile"})
_OF_SCHEDULE: Final = frozenset({SCHEDULE_LABEL, FIRE_LABEL})


def replay_runs(
    conn: Connection,
    items: Sequence[Replay],
    *,
    max_depth: int = 10,
    most_demands: int = 0,
    environment: Mapping[str, str] = NO_VARIABLES,
) -> list[ReplayResult]:
    """Submit each run again. Safe to repeat with the same ids, and with the same idempotency key.

    One result per item, in order. Errors: NotFound for a run that the caller may not see, RunNotEnded, and those of
    ``submit_runs``. An admin's replay of another owner's run belongs to that owner and is audited (models.auth.audit).
    """
    originals = {row.run_id: row for row in conn.execute(_ORIGINALS, {"run_ids": sorted({i.run_id for i in items})})}
    shown = find_visible(conn, [(item.caller, row.session_id) for item in items if (row := originals.get(item.run_id))])
    results = _refused(items, originals, shown)
    _answer_repeats_of_gone(conn, items, results)
    places = [place for place in range(len(items)) if place not in results]
    submissions = [_submission(items[place], originals[items[place].run_id]) for place in places]
    submitted = submit_runs(conn, submissions, max_depth=max_depth, most_demands=most_demands, environment=environment)
    results.update(zip(places, submitted, strict=True))
    record_acts(conn, _acts([(items[place], originals[items[place].run_id], results[place]) for place in places]))
    return [results[place] for place in range(len(items))]


def _refused(items: Sequence[Replay], originals: Mapping[str, Row[Any]], shown: Visible) -> dict[int, ReplayResult]:
    refused: dict[int, ReplayResult] = {}
    for place, item in enumerate(items):
        original = originals.get(item.run_id)
        if original is None or not can_view(item.caller, original.session_id, original.owner, shown):
            refused[place] = NotFound("run", item.run_id)
        elif original.status not in TERMINAL:
            refused[place] = RunNotEnded(item.run_id, original.status)
    return refused


def _answer_repeats_of_gone(conn: Connection, items: Sequence[Replay], results: dict[int, ReplayResult]) -> None:
    """Answer by their keys the repeats whose run was deleted after the first request."""
    gone = {place: items[place] for place, result in results.items() if isinstance(result, NotFound)}
    stored = read_keys(conn, [item.key for item in gone.values() if item.key is not None])
    for place, item in gone.items():
        known = None if item.key is None else stored.get(item.key)
        if known is not None and known.body_hash == item.body_hash:
            results[place] = Submitted(known.run_id, known.session_id, replayed=True)
        elif known is not None:
            results[place] = KeyReused(item.idempotency_key or "")


def _submission(item: Replay, original: Row[Any]) -> NewRun:
    values = {name: getattr(original, name) for name in _COPIED}
    values["labels"] = _own_labels(original.labels or {})
    demands = json.loads(original.demands)
    if original.type == RunType.RESUME and demands.get("executor_type") != PROCEDURAL:
        demands = {name: value for name, value in demands.items() if name not in _AFFINITY}
    values["additional_demands"] = demands
    values["retry"] = None if original.retry is None else read_policy(original.retry)
    values |= item.changes
    values["additional_demands"] = _demands(values["additional_demands"])
    moment = values.get("not_before")
    looks_up = not _OF_AGENT.isdisjoint(item.changes)
    # Parameters that are copied may be those of an agent that another choice does not find.
    told = "parameters" in item.changes or not looks_up
    return NewRun(
        run_id=item.new_run_id,
        session_id=None,
        new_session_id=item.new_session_id,
        caller=item.caller,
        type=RunType.START,
        idempotency_key=item.idempotency_key,
        body_hash=item.body_hash,
        replay_of=item.run_id,
        replayed_owner=original.owner,
        traceparent=item.traceparent,
        prompt_only=item.prompt_only if told else is_prompt(json.loads(values["parameters"])),
        satisfied_schema=item.satisfied_schema,
        looks_up_agent=looks_up,
        keeps_demands=not looks_up and original.has_blueprint,
        **values | {"not_before": None if moment is None else datetime.fromisoformat(moment)},
    )


def _own_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Leave out those by which a schedule marks its runs: a replay is not one, and is in no decision of it."""
    if labels.keys() >= _OF_SCHEDULE:
        return {name: value for name, value in labels.items() if name not in _OF_SCHEDULE}
    return dict(labels)


def _demands(given: Mapping[str, Any]) -> Demands:
    return Demands(**{**given, "tags": tuple(given.get("tags") or ())})


def _acts(replays: Collection[tuple[Replay, Row[Any], ReplayResult]]) -> list[AuditedAct]:
    return [
        act
        for item, original, result in replays
        if isinstance(result, Submitted) and not result.replayed
        for act in audited_act(item.caller, Act.RUN_REPLAYED, item.run_id, original.owner)
    ]
