"""Reasons of an idle runner: what keeps it from asking for runs, and then what keeps the ready runs from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from models.claims.claim import ReadyRun
from models.explanations.reasons import Reason, ReasonCode
from models.explanations.runner_facts import RunnerFacts
from models.explanations.sorting import Lacks
from models.explanations.waiting import OPERATIONS
from models.explanations.words import ago, counted, first_line, named
from models.state.runs import iso

MOST_PARTS: Final = 3


@dataclass(frozen=True, slots=True)
class Idle:
    """Runner with the ready runs as they are now.

    ``match``: how many it may take, but for exclusions; ``rejected``: the others by what they demand and it lacks.
    ``queue``: the best of those it may take. ``in_full``: demands are shown with their values.
    """

    runner: RunnerFacts
    match: int
    rejected: Mapping[Lacks, int]
    exact: bool
    queue: Sequence[ReadyRun]
    taken_now: bool
    in_full: bool

    @property
    def ready(self) -> int:
        return self.match + sum(self.rejected.values())

    @property
    def rejections(self) -> list[tuple[Lacks, int]]:
        """Return what ready runs demand and it lacks with their number, the most frequent first."""
        return sorted(self.rejected.items(), key=lambda group: (-group[1], group[0]))

    def excludes(self, run: ReadyRun) -> bool:
        return self.runner.offer.registration in (run.excluded_registrations or ())

    def text_of(self, lacking: Lacks) -> str:
        """Return what runs demand; without values for a caller that may not see runs of all owners."""
        if not lacking:
            return "none of its tags"
        return named(lacking) if self.in_full else " and ".join(sorted({f"another {name}" for name, _ in lacking}))


def _gone(idle: Idle) -> Reason | None:
    if idle.runner.known:
        return None
    return Reason(
        ReasonCode.GONE,
        f"It has left or is forgotten; its last sign of life was {ago(idle.runner.now, idle.runner.last_seen)}",
        since=idle.runner.last_seen,
        fix="start it again",
    )


def _leaving(idle: Idle) -> Reason | None:
    asked = idle.runner.leave_requested_at
    if asked is None:
        return None
    return Reason(
        ReasonCode.LEAVING,
        f"It was asked to leave {ago(idle.runner.now, asked)} and gets no more runs",
        since=asked,
        fix="start it again if it should go on",
    )


def _draining(idle: Idle) -> Reason | None:
    runner = idle.runner
    if runner.draining_since is None:
        return None
    reason = f" ({first_line(runner.drain_reason)})" if runner.drain_reason else ""
    return Reason(
        ReasonCode.DRAINING,
        f"It was drained by an administrator {ago(runner.now, runner.draining_since)}{reason} and gets no new run",
        since=runner.draining_since,
        detail={"reason": runner.drain_reason, "runs_in_hand": runner.in_hand},
        fix="undo it when the machine is back: coordinator drain RUNNER --undo",
    )


def _lost(idle: Idle) -> Reason | None:
    lost_at = idle.runner.lost_at
    if lost_at is None:
        return None
    return Reason(
        ReasonCode.LOST,
        f"It is lost: its last sign of life was {ago(idle.runner.now, idle.runner.last_seen)}, "
        "and its runs were taken away",
        since=lost_at,
        fix="look whether its process and machine run, and reach the coordinator",
    )


def _stale(idle: Idle) -> Reason | None:
    if not idle.runner.stale or idle.runner.lost_at is not None:
        return None
    return Reason(
        ReasonCode.STALE,
        f"Its last sign of life was {ago(idle.runner.now, idle.runner.last_seen)}",
        blocking=not idle.runner.asks,
        since=idle.runner.last_seen,
        fix="look whether its process and machine run, and reach the coordinator",
    )


def _superseded(idle: Idle) -> Reason | None:
    if not idle.runner.former_polls:
        return None
    return Reason(
        ReasonCode.SUPERSEDED,
        f"{counted(idle.runner.former_polls, 'poll')} of a process that this registration has replaced",
        blocking=not idle.runner.asks,
        since=idle.runner.registered_at,
        fix="two processes of one identity take each other's place: stop one, or give it another project directory",
    )


def _full(idle: Idle) -> Reason | None:
    runner = idle.runner
    if not runner.full:
        return None
    most = runner.in_hand if runner.capacity is None else runner.capacity
    return Reason(
        ReasonCode.FULL,
        f"It is full ({runner.in_hand} of {most})",
        detail={"used": runner.in_hand, "capacity": runner.capacity},
        fix="wait for a run to end, or raise its capacity",
    )


def _not_polling(idle: Idle) -> Reason | None:
    runner = idle.runner
    is_out = runner.stale or not (runner.known and runner.live) or runner.draining_since is not None
    if runner.asks or runner.full or is_out:
        return None
    return Reason(
        ReasonCode.NOT_POLLING,
        f"It does not ask for runs now; its last sign of life was {ago(runner.now, runner.last_seen)}",
        since=None,
        detail={"last_seen": iso(runner.last_seen), "runs_in_hand": runner.in_hand},
        fix="a runner may not ask while it handles a run; if it has none, look at its log",
    )


UNAVAILABLE: Final[Sequence[Callable[[Idle], Reason | None]]] = (
    _gone,
    _leaving,
    _draining,
    _lost,
    _stale,
    _superseded,
    _full,
    _not_polling,
)


def _no_ready_run(idle: Idle) -> Reason | None:
    return None if idle.ready else Reason(ReasonCode.NO_READY_RUN, "No run is ready")


def _no_ready_match(idle: Idle) -> Reason | None:
    if not idle.ready or idle.match:
        return None
    groups = idle.rejections
    parts = [
        f"{number:,} {'demands' if number == 1 else 'demand'} {idle.text_of(lacking)}"
        for lacking, number in groups[:MOST_PARTS]
    ]
    others = sum(number for _, number in groups[MOST_PARTS:])
    if others:
        parts.append(f"{others:,} demand other combinations")
    return Reason(
        ReasonCode.NO_READY_MATCH,
        f"{counted(idle.ready, 'ready run', exact=idle.exact)}: {', '.join(parts)}",
        detail={"ready": idle.ready, "exact": idle.exact},
        fix="give it what they demand, if its machine has it: it registers with that when it starts",
    )


def _all_excluded(idle: Idle) -> Reason | None:
    if not idle.queue or not all(idle.excludes(run) for run in idle.queue):
        return None
    return Reason(
        ReasonCode.ALL_EXCLUDED,
        f"It had {'the ready run' if len(idle.queue) == 1 else 'all ready runs'} that it matches before, "
        "and may not have them again",
        detail={"run_ids": [run.run_id for run in idle.queue[:10]] if idle.in_full else []},
        fix="restart it: it registers anew",
    )


def _behind_others(idle: Idle) -> Reason | None:
    offered = [run for run in idle.queue if not idle.excludes(run)]
    if not offered or idle.taken_now or not idle.runner.asks or idle.runner.full:
        return None
    return Reason(
        ReasonCode.BEHIND_OTHERS,
        f"Polls of other runners get the {counted(len(offered), 'ready run')} that it matches",
    )


NOT_OFFERED: Final[Sequence[Callable[[Idle], Reason | None]]] = (
    _no_ready_run,
    _no_ready_match,
    _all_excluded,
    _behind_others,
)


def idle_reasons(idle: Idle) -> list[Reason]:
    found = [reason for check in (*UNAVAILABLE, *NOT_OFFERED) if (reason := check(idle)) is not None]
    return found if any(reason.blocking for reason in found) else [*found, _should_claim(idle)]


def _should_claim(idle: Idle) -> Reason:
    return Reason(
        ReasonCode.SHOULD_CLAIM,
        f"It waits for runs, and {counted(idle.match, 'ready run')} match: a claim is due",
        blocking=False,
        fix=f"if it stays so, the coordinator is at fault: workers or Redis are away; {OPERATIONS}",
    )
