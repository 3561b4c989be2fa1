"""Decide the times of one schedule that are due: which run, which wait and which are passed over. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from models.core.statuses import FireKind, FireOutcome, Overlap
from models.schedules.rows import Fire, Schedule
from models.schedules.times import due_times, jitter, newest_times, next_time

# Decide a time in full if it is found within this time; the later ones are caught up. As long as an outage at least.
ON_TIME: Final = timedelta(seconds=15)
# Times that one pass decides one by one, and those that it counts as missed.
MOST_TIMES: Final = 200
MOST_COUNTED: Final = 1000
# Buffered fires that one pass starts.
MOST_STARTS: Final = 50
REPLACED: Final = "Replaced by a later fire"


@dataclass(frozen=True, slots=True)
class Decision:
    """Outcome of a time, or of ``times`` up to it from ``first_fire_at`` on."""

    fire_at: datetime
    kind: FireKind
    outcome: FireOutcome
    reason: str | None = None
    times: int = 1
    first_fire_at: datetime | None = None
    waits: bool = True
    request: str | None = None


@dataclass(slots=True)
class State:
    """Facts that decisions of one schedule depend on, kept up to date by each of them.

    ``open_runs``: its unfinished runs; ``waiting``: its buffered fires, oldest first; ``quota``: submissions that its
    owner has left in this minute, None: any number.
    """

    open_runs: list[str]
    waiting: list[Fire]
    buffered: int = 0
    quota: int | None = None
    failures: int = 0
    quota_text: str = ""

    @property
    def is_busy(self) -> bool:
        return bool(self.open_runs)


@dataclass(slots=True)
class Plan:
    """Decisions of one schedule; ``starts`` and ``replaced`` are buffered fires, ``stops`` runs to stop."""

    decisions: list[Decision] = field(default_factory=list)
    starts: list[Fire] = field(default_factory=list)
    replaced: list[Fire] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    decided_until: datetime | None = None
    next_fire_at: datetime | None = None
    next_at: datetime | None = None
    pause_reason: str | None = None
    # Due times whose submission was refused.
    refused: int = 0

    @property
    def fired(self) -> int:
        """Return by how many there are more due times that run, or will; fewer where waiting ones do not any more."""
        runs = {FireOutcome.SUBMITTED, FireOutcome.BUFFERED}
        more = sum(each.kind is FireKind.DUE and each.outcome in runs for each in self.decisions)
        return more - sum(fire.kind == FireKind.DUE for fire in self.replaced) - self.refused


@dataclass(frozen=True, slots=True)
class Due:
    """Times to decide one by one, in order, and how many before them were missed, from the first to the last."""

    times: Sequence[datetime]
    missed: int = 0
    first_missed: datetime | None = None
    last_missed: datetime | None = None


def plan_schedule(schedule: Schedule, state: State, now: datetime, *, awaits_jitter: bool = True) -> Plan:
    """Return what to do with the schedule now; without ``awaits_jitter`` every nominal time up to now is decided."""
    plan = Plan()
    most = schedule.pause_after_failures
    if most is not None and state.failures >= most:
        plan.pause_reason = f"{state.failures} runs failed in a row"
    else:
        _start_waiting(plan, state)
    due = due_now(schedule, now, awaits_jitter=awaits_jitter)
    if due.missed and due.last_missed is not None:
        plan.decisions.append(_missed(due))
    for moment in due.times:
        if _has_ended(schedule, plan):
            break
        if plan.pause_reason is not None:
            reason = f"Paused: {plan.pause_reason}"
            plan.decisions.append(Decision(moment, FireKind.DUE, FireOutcome.SKIPPED, reason))
        else:
            decide(plan, schedule, state, Decision(moment, FireKind.DUE, FireOutcome.SUBMITTED))
    decided = [decision.fire_at for decision in plan.decisions]
    plan.decided_until = max([schedule.decided_until, *decided])
    look_ahead(schedule, plan)
    return plan


def look_ahead(schedule: Schedule, plan: Plan) -> None:
    """Set when to look at the schedule again by what the plan decides; never once its fires are used up."""
    after = plan.decided_until or schedule.decided_until
    plan.next_fire_at, plan.next_at = (None, None) if _has_ended(schedule, plan) else _look(schedule, after)


def _has_ended(schedule: Schedule, plan: Plan) -> bool:
    return schedule.most_fires is not None and schedule.fired + plan.fired >= schedule.most_fires


def decide(plan: Plan, schedule: Schedule, state: State, wanted: Decision, overlap: str | None = None) -> Decision:
    """Add the decision on one fire that would be submitted, by the overlap policy and the owner's quota."""
    policy = Overlap(overlap or schedule.overlap)
    decision = replace(wanted, waits=policy is not Overlap.ALLOW)
    if policy is Overlap.CANCEL_RUNNING:
        _replace(plan, state)
    if (state.is_busy or state.buffered) and policy is not Overlap.ALLOW:
        decision = _overlapping(plan, schedule, state, decision, policy)
    elif state.quota is not None and state.quota <= 0:
        decision = _buffer(schedule, state, replace(decision, reason=state.quota_text))
    if decision.outcome is FireOutcome.SUBMITTED:
        _count(state)
    plan.decisions.append(decision)
    return decision


def due_now(schedule: Schedule, now: datetime, *, awaits_jitter: bool = True) -> Due:
    """Return the times up to now that have no decision: those on time, and of the others the newest to catch up."""
    spec, after = schedule.times, schedule.decided_until
    patience = timedelta(seconds=schedule.catch_up_seconds)
    widest = max(patience, ON_TIME) + timedelta(seconds=schedule.jitter_seconds)
    found = newest_times(spec, max(after, now - widest), now, MOST_TIMES)
    times = found if found or after >= now - widest else newest_times(spec, after, now, 2)
    following = [*times[1:], next_time(spec, times[-1])] if schedule.jitter_seconds and times else [None] * len(times)
    late = {
        moment: now - moment - jitter(schedule.schedule_id, moment, then, schedule.jitter_seconds)
        for moment, then in zip(times, following, strict=True)
    }
    if awaits_jitter and times and late[times[-1]] < timedelta(0):
        times = times[:-1]
    taken = 0
    for moment in reversed(times):
        catches_up = taken < schedule.catch_up_most and late[moment] <= patience
        if not (late[moment] <= ON_TIME or catches_up):
            break
        taken += 1
    kept = times[len(times) - taken :]
    last = None
    if taken < len(times):
        last = times[len(times) - taken - 1]
    elif kept and (after < now - widest or len(found) >= MOST_TIMES):
        last = next(iter(newest_times(spec, after, kept[0] - timedelta(microseconds=1), 1)), None)
    if last is None:
        return Due(kept)
    missed = due_times(spec, after, last, MOST_COUNTED)
    return Due(kept, len(missed), missed[0], last)


def next_look(schedule: Schedule, after: datetime) -> tuple[datetime | None, datetime | None]:
    """Return the next nominal time, and when to decide it; neither once its fires are used up."""
    return (None, None) if schedule.fires_left == 0 else _look(schedule, after)


def _look(schedule: Schedule, after: datetime) -> tuple[datetime | None, datetime | None]:
    spec = schedule.times
    moment = next_time(spec, after)
    if moment is None:
        return None, None
    following = next_time(spec, moment) if schedule.jitter_seconds else None
    return moment, moment + jitter(schedule.schedule_id, moment, following, schedule.jitter_seconds)


def _missed(due: Due) -> Decision:
    at_least = "at least " if due.missed >= MOST_COUNTED else ""
    reason = f"Not decided in time: {at_least}{due.missed} {'time' if due.missed == 1 else 'times'}"
    assert due.last_missed is not None  # noqa: S101 -- the caller has looked
    outcome = FireOutcome.MISSED
    return Decision(due.last_missed, FireKind.DUE, outcome, reason, due.missed, due.first_missed, waits=False)


def _overlapping(plan: Plan, schedule: Schedule, state: State, decision: Decision, policy: Overlap) -> Decision:
    run_id = next(filter(None, state.open_runs), None)
    because = "An earlier fire is not over" if run_id is None else f"Run {run_id} is unfinished"
    match policy:
        case Overlap.SKIP:
            return replace(decision, outcome=FireOutcome.SKIPPED, reason=because)
        case Overlap.BUFFER_ONE if state.buffered:
            return replace(decision, outcome=FireOutcome.SKIPPED, reason="An earlier fire waits already")
        case Overlap.CANCEL_RUNNING:
            plan.stops += [each for each in state.open_runs if each and each not in plan.stops]
    return _buffer(schedule, state, replace(decision, reason=because))


def _replace(plan: Plan, state: State) -> None:
    """Drop the earlier fires whose runs are not there yet, but for those of a backfill."""
    earlier_fires = [*plan.starts, *state.waiting]
    plan.replaced += [fire for fire in earlier_fires if fire.kind != FireKind.BACKFILL]
    plan.starts = [fire for fire in plan.starts if fire.kind == FireKind.BACKFILL]
    state.waiting = [fire for fire in state.waiting if fire.kind == FireKind.BACKFILL]
    state.buffered = len(state.waiting)
    for place, earlier in enumerate(plan.decisions):
        if earlier.outcome in {FireOutcome.SUBMITTED, FireOutcome.BUFFERED}:
            plan.decisions[place] = replace(earlier, outcome=FireOutcome.SKIPPED, reason=REPLACED)
    dropped = state.open_runs.count("") - len(plan.starts)
    state.open_runs = [run_id for run_id in state.open_runs if run_id] + [""] * len(plan.starts)
    state.quota = None if state.quota is None else state.quota + dropped


def _buffer(schedule: Schedule, state: State, decision: Decision) -> Decision:
    if state.buffered >= schedule.buffer_most:
        reason = f"{schedule.buffer_most} fires wait already"
        return replace(decision, outcome=FireOutcome.SKIPPED, reason=reason)
    state.buffered += 1
    return replace(decision, outcome=FireOutcome.BUFFERED)


def _start_waiting(plan: Plan, state: State) -> None:
    """Start buffered fires, oldest first, as their policies and the quota allow."""
    left: list[Fire] = []
    for fire in state.waiting:
        is_held = fire.waits and state.is_busy
        if is_held or (state.quota is not None and state.quota <= 0) or len(plan.starts) >= MOST_STARTS:
            left.append(fire)
            continue
        plan.starts.append(fire)
        state.buffered -= 1
        _count(state)
    state.waiting = left


def _count(state: State) -> None:
    """Count a submission that is about to be made; its run has no id yet."""
    state.open_runs.append("")
    if state.quota is not None:
        state.quota -= 1
