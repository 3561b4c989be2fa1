"""Expiry: every second, all that ran out of time, by state and not by edge (ARCHITECTURE, Expiry)."""

from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from models.core.limits import DEFAULT_LIMITS, Limits
from models.expiry.duties import try_duty
from models.expiry.match_deadlines import fail_unmatched
from models.expiry.outages import read_clocks
from models.expiry.runners import drop_silent_polls, lose_silent, take_from_lost, take_orphaned, take_unheld
from models.expiry.runs import (
    Pass,
    Step,
    drop_superseded_stops,
    give_up_idle_stops,
    give_up_stops,
    ready_runs,
    release_spent_claims,
    stop_timed_out,
)

# Steps that need no runner to be heard, steps that judge by silence, and deadlines that move by the gaps of their time.
ALWAYS: Final[tuple[Step, ...]] = (ready_runs, drop_silent_polls)
HEARING: Final[tuple[Step, ...]] = (
    lose_silent,
    take_from_lost,
    take_unheld,
    take_orphaned,
    release_spent_claims,
    give_up_stops,
    give_up_idle_stops,
    drop_superseded_stops,
)
MOVING: Final[tuple[Step, ...]] = (stop_timed_out, fail_unmatched)
# These change nothing that anybody is told of.
SILENT: Final = frozenset(
    {"runners lost", "runners gone", "polls dropped", "run deadlines moved", "superseded stops dropped"}
)


@dataclass(frozen=True, slots=True)
class ExpireResult:
    """What a pass did, by name; which actors are to be rung after the commit; whether another pass is due at once;
    and the runners whose parked polls have something to be told.
    """

    counts: dict[str, int] = field(default_factory=dict)
    actors: frozenset[str] = frozenset()
    again: bool = False
    told: frozenset[str] = frozenset()


def expire(conn: Connection, *, limits: Limits = DEFAULT_LIMITS, at_most: int = 500) -> ExpireResult:
    """Do one pass over all deadlines of runners, claims, starts, runs and stops; each step takes ``at_most`` rows.

    What somebody else has locked is left to the next pass, and so is everything while another pass runs. Silence that
    we caused is held against nobody: gaps of ours are noted first, and while one is open only what needs no runner to
    be heard, or has waited twice its time, is done (promise 5). Idempotent; a missed pass is caught up by the next.
    """
    if not try_duty(conn, "expiry"):
        return ExpireResult()
    one = Pass(conn, read_clocks(conn), limits, at_most)
    steps = ALWAYS
    if not one.clocks.suspended:
        steps = (*ALWAYS, *HEARING) if one.clocks.unheard else (*ALWAYS, *HEARING, *MOVING)
    counts: dict[str, int] = {}
    again = False
    runners: set[str] = set()
    for step in steps:
        done = step(one)
        runners |= done.told
        counts |= {name: number for name, number in done.counts.items() if number}
        again = again or done.full
    told = counts.keys() - SILENT
    # A return to pending or a session's end makes a run claimable, and is told of, to parents too.
    actors = frozenset({"dispatch", "broadcast", "callbacks"}) if told else frozenset()
    return ExpireResult(counts, actors, again, frozenset(runners))
