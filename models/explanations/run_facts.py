from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from models.claims.matching import Demands
from models.core.callers import Caller
from models.core.errors import NotFound
from models.core.limits import Limits
from models.core.retries import read_policy
from models.runners.heartbeat import IS_STALE
from models.schema.sql import sql
from models.state.holds import applies
from models.state.process_places import LAST_PLACE_OF_S
from models.state.runs import RUN_COLUMNS, RUN_COLUMNS_OF_RUNS, Run, as_run
from models.state.session_status import IS_EARLIER, IS_OPEN_STOP
from models.state.unfinished import READY_AT
from models.state.visibility import can_view, find_visible

_DEMANDED: Final = 5


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Run with all that decides what it waits for, but the runners: its session, its holder and its deadlines.

    ``earlier_*``: the first unfinished run of its session before it; ``stop_*``: the open stop of its session;
    ``holder_*``: the registration that has it in hand, None when that is gone. ``expired_at``: the last pass of expiry.
    ``home_*``: place where the session of a resume lives, or where its last run ran if no process said. ``retry``: its
    retry policy as JSON text; ``former_outcome``: the report that ended the attempt before. ``hold_*``: a hold that
    applies to it while it is pending, its own first.
    """

    run: Run
    demands: Demands
    now: datetime
    profile_id: int
    ready: bool
    ready_at: datetime | None
    excluded_registrations: list[int] | None
    delivered_at: datetime | None
    claim_deadline_at: datetime | None
    run_deadline_at: datetime | None
    run_timeout_seconds: int | None
    failed_deliveries: int
    missed_heartbeats: int
    stop_cause: str | None
    ended_by_us: bool
    earlier_run_id: str | None
    earlier_status: str | None
    stop_runner_id: str | None
    stop_at: datetime | None
    stop_sent_at: datetime | None
    stop_deadline_at: datetime | None
    holder_seen: datetime | None
    holder_lost_at: datetime | None
    holder_stale: bool | None
    holder_interval: int | None
    home_hostname: str | None
    home_profile: str | None
    expired_at: datetime | None
    retry: str | None
    former_outcome: str | None
    hold_name: str | None
    hold_run_id: str | None
    hold_note: str | None
    held_by: str | None
    held_at: datetime | None

    @property
    def most_attempts(self) -> int:
        """Starts allowed, whether runners are lost or report failures."""
        by_policy = 0 if self.retry is None else read_policy(self.retry).max_attempts
        return max(self.run.max_attempts, by_policy)


_READ: Final = sql(
    """
    SELECT $run, p.hostname AS wanted_hostname, p.project_dir AS wanted_dir, p.executor_profile AS wanted_profile,
        p.executor_type AS wanted_type, p.tags AS wanted_tags,
        now() AS now, runs.profile_id, runs.ready,
        CASE WHEN runs.ready THEN $ready_at END AS ready_at,
        runs.not_for, runs.delivered_at, runs.claim_deadline_at, runs.run_deadline_at, runs.run_timeout_seconds,
        runs.fruitless_claims, runs.unheld_beats, runs.stop_cause, runs.ended_by_us,
        earlier.run_id AS earlier_run_id, earlier.status AS earlier_status,
        stop.runner_id AS stop_runner_id, stop.created_at AS stop_at, stop.sent_at, stop.deadline_at,
        holder.last_seen, holder.lost_at, holder.is_stale, holder.told_interval,
        home.hostname AS home_hostname, home.executor_profile AS home_profile,
        (SELECT last_run FROM duties WHERE duty = 'expiry clock') AS expired_at,
        CAST(runs.retry AS text) AS retry, runs.last_ended_outcome,
        hold.name, hold.run_id AS hold_run_id, hold.note, hold.held_by, hold.created_at AS held_at
    FROM runs
    LEFT JOIN demand_profiles p ON p.profile_id = runs.profile_id
    -- the name by which the conditions know the run
    CROSS JOIN LATERAL (
        SELECT runs.session_id, runs.session_seq, runs.status, runs.match_deadline_at, runs.no_match_timeout_seconds
    ) r
    LEFT JOIN LATERAL (
        SELECT e.run_id, e.status FROM runs e WHERE r.status = $PENDING AND $is_earlier ORDER BY e.session_seq LIMIT 1
    ) earlier ON true
    LEFT JOIN LATERAL (
        SELECT c.runner_id, c.created_at, c.sent_at, c.deadline_at FROM stop_commands c WHERE $is_open_stop LIMIT 1
    ) stop ON true
    LEFT JOIN LATERAL (
        SELECT last_seen, lost_at, told_interval, $is_stale AS is_stale FROM runners
        WHERE runner_id = runs.runner_id AND registration = runs.registration AND r.status IN $IN_HAND
    ) holder ON true
    LEFT JOIN LATERAL (
        SELECT coalesce(s.hostname, last.hostname) AS hostname,
            coalesce(s.executor_profile, last.executor_profile) AS executor_profile
        FROM sessions s
        LEFT JOIN LATERAL ($last_place) last ON s.hostname IS NULL AND s.executor_profile IS NULL
        WHERE s.session_id = r.session_id AND r.status = $PENDING AND runs.session_seq > 1
    ) home ON true
    LEFT JOIN LATERAL (
        SELECT h.name, h.run_id, h.note, h.held_by, h.created_at FROM holds h
        WHERE runs.status = $PENDING AND (h.run_id = runs.run_id OR $applies)
        ORDER BY h.run_id, h.created_at, h.name LIMIT 1
    ) hold ON true
    WHERE runs.run_id = :run_id
    """,
    run=RUN_COLUMNS_OF_RUNS,
    is_earlier=IS_EARLIER,
    is_open_stop=IS_OPEN_STOP,
    is_stale=IS_STALE,
    applies=f"({applies('runs')})",
    ready_at=READY_AT,
    last_place=LAST_PLACE_OF_S,
)
_READ_RUN: Final = _READ.columns(*RUN_COLUMNS)


def read_run_facts(conn: Connection, caller: Caller, run_id: str, limits: Limits) -> RunFacts | NotFound:
    """Return the facts of one run; NotFound for another owner's, as ``get_run`` does."""
    row = conn.execute(_READ_RUN, {"run_id": run_id, "stale_after": limits.stale_after}).one_or_none()
    if row is None:
        return NotFound("run", run_id)
    run = as_run(row)
    if not can_view(caller, run.session_id, run.owner, find_visible(conn, [(caller, run.session_id)])):
        return NotFound("run", run_id)
    wanted, rest = row[len(RUN_COLUMNS) : len(RUN_COLUMNS) + _DEMANDED], row[len(RUN_COLUMNS) + _DEMANDED :]
    hostname, project_dir, executor_profile, executor_type, tags = wanted
    return RunFacts(run, Demands(hostname, project_dir, executor_profile, executor_type, tuple(tags or ())), *rest)
