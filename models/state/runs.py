from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, literal_column, select

from models.core.callers import Caller
from models.core.errors import NotFound
from models.core.statuses import TERMINAL
from models.schema.columns import any_of, names_of
from models.schema.sql import sql
from models.schema.tables import runs
from models.state.visibility import can_view, find_visible


@dataclass(frozen=True, slots=True)
class Run:
    """Unit of work. ``parameters``, ``demands`` and ``scope`` are JSON text, ``labels`` an object or None.

    ``timeout_at`` is when it fails if no live registration satisfies it by then; None while one does. ``waited``: the
    seconds for which it was ready, in the answer of the statement that claimed it only. ``blueprint``: JSON text, in
    the answers of claims and deliveries only.
    """

    run_id: str
    session_id: str
    type: str
    agent_name: str | None
    parameters: str
    project_dir: str | None
    parent_session_id: str | None
    execution_mode: str
    demands: str
    labels: dict[str, str] | None
    scope: str | None
    status: str
    runner_id: str | None
    error: str | None
    created_at: datetime
    claimed_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    timeout_at: datetime | None
    not_before: datetime | None
    attempt: int
    max_attempts: int
    priority: int
    claim_token: str | None
    claim_poll_id: str | None
    owner: str | None
    replay_of: str | None
    traceparent: str | None = None
    waited: float | None = field(default=None, compare=False)
    blueprint: str | None = field(default=None, compare=False)


# Compute the no-match deadline as expiry does (models/expiry): the later of readiness and the moment from which no live
# registration satisfied the run, plus its timeout and the outages since. OFFSET keeps it from reading the profile three
# times.
_TIMEOUT_SQL: Final = sql("""CASE WHEN runs.status = $PENDING AND runs.ready THEN (
        SELECT w.since + make_interval(secs => runs.no_match_timeout_seconds) + coalesce((
            SELECT sum(upper(part) - lower(part))
            FROM unnest((SELECT range_agg(tstzrange(started_at, ended_at)) FROM gaps
                          WHERE ended_at > w.since AND kind <> 'runners')
                        * tstzmultirange(tstzrange(w.since, NULL))) AS part), interval '0')
        FROM (SELECT greatest(u.since, runs.match_deadline_at
                              - make_interval(secs => runs.no_match_timeout_seconds)) AS since
              FROM (SELECT CASE WHEN runs.not_for IS NOT NULL THEN runs.unmatched_since
                                ELSE (SELECT p.unmatched_since FROM demand_profiles p
                                      WHERE p.profile_id = runs.profile_id) END AS since OFFSET 0) u
              WHERE u.since IS NOT NULL) w) END""").text
_TIMEOUT_AT: ColumnElement[datetime | None] = literal_column(_TIMEOUT_SQL, runs.c.match_deadline_at.type)
TIMEOUT_AT = "timeout_at"
_NO_COLUMNS: Final = frozenset({"waited", "blueprint"})
RUN_COLUMNS = tuple(
    _TIMEOUT_AT.label(TIMEOUT_AT) if of_run.name == TIMEOUT_AT else runs.c[of_run.name]
    for of_run in fields(Run)
    if of_run.name not in _NO_COLUMNS
)
# Build it once: building a statement of so many columns takes longer than reading a row.
_READ = select(*RUN_COLUMNS).where(runs.c.run_id == any_of("run_ids"))
_READ_ENDED = _READ.where(runs.c.status.in_(sorted(TERMINAL)))


# For statements that claim runs, called r: these have no no-match deadline any more.
RUN_COLUMNS_OF_R = names_of("r", RUN_COLUMNS).replace(f"r.{TIMEOUT_AT}", f"CAST(NULL AS timestamptz) AS {TIMEOUT_AT}")
# For statements that read the table by its own name.
RUN_COLUMNS_OF_RUNS: Final = names_of("runs", RUN_COLUMNS).replace(
    f"runs.{TIMEOUT_AT}", f"{_TIMEOUT_SQL} AS {TIMEOUT_AT}"
)


# Blueprint of a run with the alias ``{run}``; runs without an agent are not looked up.
_BLUEPRINT: Final = (
    "CASE WHEN {run}.agent_name IS NOT NULL THEN"
    " (SELECT CAST(b.blueprint AS text) FROM run_blueprints b WHERE b.run_id = {run}.run_id) END AS blueprint"
)
BLUEPRINT_OF_R: Final = _BLUEPRINT.format(run="r")
BLUEPRINT_OF_T: Final = _BLUEPRINT.format(run="t")


def as_run(row: Sequence[Any]) -> Run:
    return Run(*row[: len(RUN_COLUMNS)])


def as_claimed_run(row: Row[Any]) -> Run:
    return replace(as_run(row), waited=row.waited, blueprint=row.blueprint)


def iso(moment: datetime | None) -> str | None:
    """Return a timestamp as PROTOCOL writes it: ISO 8601, in UTC, with offset."""
    return None if moment is None else moment.astimezone(UTC).isoformat()


def read_runs(conn: Connection, run_ids: Sequence[str]) -> dict[str, Run]:
    if not run_ids:
        return {}
    rows = conn.execute(_READ, {"run_ids": list(run_ids)})
    return {row.run_id: as_run(row) for row in rows}


def get_run(conn: Connection, caller: Caller, run_id: str) -> Run | NotFound:
    """Return one run; NotFound for another owner's (PROTOCOL, Runs)."""
    found = read_runs(conn, [run_id]).get(run_id)
    if found is None or not can_view(
        caller, found.session_id, found.owner, find_visible(conn, [(caller, found.session_id)])
    ):
        return NotFound("run", run_id)
    return found


def runs_ended(conn: Connection, run_ids: Sequence[str]) -> list[Run]:
    rows = conn.execute(_READ_ENDED, {"run_ids": list(run_ids)})
    return [as_run(row) for row in rows]
