"""Decide the times of schedules that are due, in one transaction with the submissions: each time once."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from models.core import errors
from models.core.errors import CoordinatorError
from models.core.limits import DEFAULT_LIMITS, Limits
from models.core.statuses import FireKind, FireOutcome, RunStatus
from models.registries.blueprints.dependencies import ResolutionError
from models.registries.blueprints.mcp_references import McpConfigMissing, McpReferenceUnresolved
from models.registries.blueprints.resolve import ScriptNotFound
from models.runs.stop import Stopped, StopRun, stop_runs
from models.runs.submission import NewRun, Submitted
from models.runs.submit import submit_runs
from models.schedules.fires import (
    ChangedFire,
    FireKey,
    NewFire,
    add_fires,
    change_fires,
    open_runs,
    quota_left,
    settle,
    waiting_fires,
)
from models.schedules.plan import REPLACED, Plan, State, look_ahead, plan_schedule
from models.schedules.rows import COLUMNS, Fire, Schedule, clock
from models.schedules.templates import run_of_fire
from models.schedules.zones import TZ_VERSION
from models.schema.sql import sql

MOST_SCHEDULES: Final = 50


@dataclass(frozen=True, slots=True)
class Rules:
    """Bounds of the submissions of schedules. ``a_minute``: of each owner; 0: any number, as of those without one.

    ``environment`` has the variables that blueprints of agents may use.
    """

    limits: Limits = DEFAULT_LIMITS
    most_demands: int = 0
    a_minute: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Decided:
    """Decisions of one transaction, for what comes after its commit.

    ``late``: seconds from when due times were to be decided. ``stopped``: runs that gave way. ``full``: there may be
    more to decide.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    late: list[float] = field(default_factory=list)
    submitted: int = 0
    stopped: list[Stopped] = field(default_factory=list)
    full: bool = False

    @property
    def has_events(self) -> bool:
        return self.submitted > 0 or bool(self.stopped)

    def add(self, other: "Decided") -> None:
        self.outcomes.update(other.outcomes)
        self.late += other.late
        self.submitted += other.submitted
        self.stopped += other.stopped


# A schedule with buffered fires is due once one of them may start; any of these, since quotas may hold some back.
_DUE: Final = sql(
    """
    SELECT $columns FROM schedules s
    WHERE s.schedule_no IN (
        (SELECT d.schedule_no FROM schedules d
         WHERE NOT d.paused AND d.next_at IS NOT NULL AND d.next_at <= statement_timestamp()
         ORDER BY d.next_at LIMIT :most)
        UNION
        (SELECT b.schedule_no FROM schedules b
         WHERE b.has_buffered AND NOT b.paused AND (
             NOT EXISTS (SELECT 1 FROM schedule_fires o JOIN runs r ON r.run_id = o.run_id
                         WHERE o.schedule_no = b.schedule_no AND o.outcome = $FIRE_SUBMITTED AND o.run_status IS NULL
                           AND r.status IN $UNFINISHED)
             OR EXISTS (SELECT 1 FROM schedule_fires w
                        WHERE w.schedule_no = b.schedule_no AND w.outcome = $FIRE_BUFFERED AND NOT w.waits))
         ORDER BY random() LIMIT :most))
      AND NOT s.paused
    ORDER BY s.next_at, s.schedule_no LIMIT :most
    FOR UPDATE OF s SKIP LOCKED
    """,
    columns=COLUMNS,
)

_ONE: Final = sql(
    "SELECT $columns FROM schedules s WHERE s.schedule_no = :number FOR UPDATE SKIP LOCKED", columns=COLUMNS
)

_MOVE: Final = sql("""
    UPDATE schedules s
    SET decided_until = n.decided_until, next_fire_at = n.next_fire_at, next_at = n.next_at, fired = s.fired + n.fired,
        failures = n.failures, tz_version = :tz_version, paused = s.paused OR n.pause_reason IS NOT NULL,
        pause_reason = coalesce(n.pause_reason, s.pause_reason),
        version = s.version + CASE WHEN n.pause_reason IS NULL THEN 0 ELSE 1 END,
        has_buffered = EXISTS (SELECT 1 FROM schedule_fires f
                               WHERE f.schedule_no = s.schedule_no AND f.outcome = $FIRE_BUFFERED)
    FROM unnest(CAST(:schedules AS bigint[]), CAST(:decided AS timestamptz[]), CAST(:fires AS timestamptz[]),
                CAST(:looks AS timestamptz[]), CAST(:fired AS integer[]), CAST(:failures AS integer[]),
                CAST(:reasons AS text[]))
        AS n(schedule_no, decided_until, next_fire_at, next_at, fired, failures, pause_reason)
    WHERE s.schedule_no = n.schedule_no
""")

_REASONS: Final[Mapping[type[CoordinatorError], Callable[[Any], str]]] = {
    errors.NotFound: lambda error: f"{error.noun.capitalize()} '{error.id}' not found",
    errors.SessionExists: lambda error: f"Session '{error.session_id}' already exists: name it with {{fire_at}}",
    errors.ParentOfAnotherOwner: str,
    errors.TooDeep: str,
    errors.ParentIsDescendant: lambda error: f"Parent session '{error.parent_session_id}' is a descendant",
    errors.TooManyDemands: lambda error: f"At most {error.limit} distinct sets of demands are allowed",
    errors.PromptRequired: lambda _: "Without an agent the parameters must be a prompt",
    errors.SchemaUnchecked: lambda error: (
        f"Agent '{error.agent_name}' has another schema of its parameters now: put the schedule again"
    ),
    errors.AgentNotResumable: lambda error: f"Agent '{error.agent_name}' cannot be resumed",
    ResolutionError: lambda error: error.text_of_list(),
    ScriptNotFound: str,
    McpReferenceUnresolved: str,
    McpConfigMissing: str,
    errors.KeyReused: lambda _: "Its idempotency key came with another submission",
}


def lock_due(conn: Connection, most: int = MOST_SCHEDULES) -> list[Schedule]:
    """Lock schedules that are due, longest due first; those that another transaction decides are left to it."""
    return [Schedule(*row) for row in conn.execute(_DUE, {"most": most})]


def lock_one(conn: Connection, schedule_no: int) -> Schedule | None:
    row = conn.execute(_ONE, {"number": schedule_no}).first()
    return None if row is None else Schedule(*row)


def decide_due(conn: Connection, rules: Rules, most: int = MOST_SCHEDULES) -> Decided:
    """Decide the times of the schedules that are due, and submit their runs. Safe to repeat, also concurrently."""
    schedules = lock_due(conn, most)
    decided = decide_locked(conn, schedules, rules)
    decided.full = len(schedules) == most and bool(decided.outcomes)
    return decided


def decide_locked(
    conn: Connection, schedules: Sequence[Schedule], rules: Rules, *, until: datetime | None = None
) -> Decided:
    """Decide what is due of schedules whose rows are locked; paused ones are passed over.

    ``until``: moment of a change of the schedules; each nominal time up to it is decided, its jitter over or not.
    """
    decided = Decided()
    active = [schedule for schedule in schedules if not schedule.paused]
    if not active:
        return decided
    now = until or clock(conn)
    states = read_states(conn, active, rules)
    plans = [
        (schedule, plan_schedule(schedule, state, now, awaits_jitter=until is None))
        for schedule, state in sharing_quotas(active, states)
    ]
    apply_plans(conn, plans, now, rules, decided)
    move_on(conn, plans, states)
    return decided


def sharing_quotas(schedules: Sequence[Schedule], states: Mapping[int, State]) -> Iterator[tuple[Schedule, State]]:
    """Yield the schedules one by one, each with what the earlier ones of its owner have left of the quota."""
    left: dict[str | None, int | None] = {}
    for schedule in schedules:
        state = states[schedule.schedule_no]
        state.quota = left.get(schedule.owner, state.quota)
        yield schedule, state
        left[schedule.owner] = state.quota


def read_states(conn: Connection, schedules: Sequence[Schedule], rules: Rules) -> dict[int, State]:
    """Return what decisions on the schedules depend on; the ends of their runs are noted."""
    numbers = [schedule.schedule_no for schedule in schedules]
    failures = {schedule.schedule_no: schedule.failures for schedule in schedules}
    for number, status in settle(conn, numbers):
        if status == RunStatus.FAILED:
            failures[number] += 1
        elif status == RunStatus.COMPLETED:
            failures[number] = 0
    unfinished, waiting = open_runs(conn, numbers), waiting_fires(conn, numbers)
    owners = [schedule.owner for schedule in schedules if schedule.owner is not None] if rules.a_minute else []
    left = quota_left(conn, owners, rules.a_minute)
    return {
        schedule.schedule_no: State(
            unfinished.get(schedule.schedule_no, []),
            waiting.get(schedule.schedule_no, []),
            len(waiting.get(schedule.schedule_no, [])),
            None if schedule.owner is None or not rules.a_minute else left[schedule.owner],
            failures[schedule.schedule_no],
            f"The owner's quota of {rules.a_minute} submissions a minute is used up",
        )
        for schedule in schedules
    }


def apply_plans(
    conn: Connection, plans: Sequence[tuple[Schedule, Plan]], now: datetime, rules: Rules, decided: Decided
) -> None:
    """Store the decisions and submit the runs of those that were not there; stop runs that give way."""
    wanted: dict[FireKey, NewRun] = {}
    new: list[NewFire] = []
    for schedule, plan in plans:
        for decision in plan.decisions:
            run = None
            if decision.outcome is FireOutcome.SUBMITTED:
                run = run_of_fire(schedule, decision.fire_at, decision.kind)
            fire = NewFire(schedule, decision, None if run is None else run.run_id)
            new.append(fire)
            if run is not None:
                wanted[fire.key] = run
    added = add_fires(conn, new, now)
    starts = {
        _key(fire): run_of_fire(schedule, fire.fire_at, fire.kind) for schedule, plan in plans for fire in plan.starts
    }
    runs = {key: run for key, run in wanted.items() if key in added} | starts
    changes = _submit(conn, runs, starts.keys(), rules)
    changes += [ChangedFire(_key(fire), FireOutcome.SKIPPED, REPLACED) for _, plan in plans for fire in plan.replaced]
    change_fires(conn, changes, now)
    refused = {change.key for change in changes if change.outcome == FireOutcome.FAILED}
    for fire in new:
        if fire.key in added:
            decided.outcomes[FireOutcome.FAILED if fire.key in refused else fire.decision.outcome] += 1
            if fire.decision.kind is FireKind.DUE and fire.decision.outcome is not FireOutcome.MISSED:
                # Of the first of several times: when the row was to be looked at.
                due = fire.schedule.next_at or fire.decision.fire_at
                decided.late.append(max(0.0, (now - max(due, fire.decision.fire_at)).total_seconds()))
    for key in starts:
        decided.outcomes[FireOutcome.FAILED if key in refused else FireOutcome.SUBMITTED] += 1
    decided.submitted += len(runs) - len(refused)
    for schedule, plan in plans:
        times = [decision.fire_at for decision in plan.decisions if decision.kind is FireKind.DUE]
        times += [fire.fire_at for fire in plan.starts if fire.kind == FireKind.DUE]
        plan.refused += sum((schedule.schedule_no, moment, FireKind.DUE) in refused for moment in times)
    _stop(conn, plans, rules, decided)


def _key(fire: Fire) -> FireKey:
    return fire.schedule_no, fire.fire_at, fire.kind


def _submit(
    conn: Connection, runs: Mapping[FireKey, NewRun], starts: Collection[FireKey], rules: Rules
) -> list[ChangedFire]:
    """Submit the runs; return what their fires have to be changed to."""
    items = list(runs.values())
    if not items:
        return []
    results = submit_runs(
        conn,
        items,
        max_depth=rules.limits.max_depth,
        most_demands=rules.most_demands,
        environment=rules.environment,
    )
    changes: list[ChangedFire] = []
    for key, item, result in zip(runs, items, results, strict=True):
        if not isinstance(result, Submitted):
            changes.append(ChangedFire(key, FireOutcome.FAILED, reason_of(result)))
        elif key in starts or result.run_id != item.run_id:
            changes.append(ChangedFire(key, FireOutcome.SUBMITTED, None, result.run_id))
    return changes


def reason_of(error: CoordinatorError) -> str:
    """Return why a submission was refused, for the owner of the schedule."""
    described = _REASONS.get(type(error))
    return type(error).__name__ if described is None else described(error)


def _stop(conn: Connection, plans: Sequence[tuple[Schedule, Plan]], rules: Rules, decided: Decided) -> None:
    stops = [StopRun(schedule.caller, run_id) for schedule, plan in plans for run_id in plan.stops]
    if not stops:
        return
    decided.stopped += [each for each in stop_runs(conn, stops, limits=rules.limits) if isinstance(each, Stopped)]


def move_on(conn: Connection, plans: Sequence[tuple[Schedule, Plan]], states: Mapping[int, State]) -> None:
    """Write how far the schedules have come, once their plans have been applied."""
    for schedule, plan in plans:
        if plan.refused or plan.replaced:
            look_ahead(schedule, plan)
    conn.execute(
        _MOVE,
        {
            "schedules": [schedule.schedule_no for schedule, _ in plans],
            "decided": [plan.decided_until or schedule.decided_until for schedule, plan in plans],
            "fires": [plan.next_fire_at for _, plan in plans],
            "looks": [plan.next_at for _, plan in plans],
            "fired": [plan.fired for _, plan in plans],
            "failures": [states[schedule.schedule_no].failures for schedule, _ in plans],
            "reasons": [plan.pause_reason for _, plan in plans],
            "tz_version": TZ_VERSION,
        },
    )
