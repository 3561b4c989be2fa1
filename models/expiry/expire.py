"""Expiry: checks every deadline once a second, by state and not by a timer for each (ARCHITECTURE, Expiry)."""

from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from models.core.limits import DEFAULT_LIMITS, Limits
from models.expiry.duties import try_duty
from models.expiry.holds import apply_holds
from models.expiry.match_deadlines import fail_unmatched
from models.expiry.outages import read_clocks
from models.expiry.runners import drop_silent_polls, lose_silent, take_from_lost, take_orphaned, take_unheld
from models.expiry.runs import (
    drop_superseded_stops,
    give_up_idle_stops,
    give_up_stops,
    ready_runs,
    release_spent_claims,
    stop_timed_out,
)
from models.expiry.steps import Pass, Step

# Run steps that need no runner to be heard, steps that judge by silence, and steps whose deadlines move by outages.
ALWAYS: Final[tuple[Step, ...]] = (apply_holds, ready_runs, drop_silent_polls)
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
# Steps that write no event, so no wake-up is needed.
SILENT: Final = frozenset(
    {"runners lost", "runners gone", "polls dropped", "run deadlines moved", "superseded stops dropped", "held"}
)


@dataclass(frozen=True, slots=True)
class ExpireResult:
    """Result of a pass: counts by name, the actors to notify after the commit, whether another pass is due at once, and
    the runners whose parked polls have a stop to deliver.
    """

    counts: dict[str, int] = field(default_factory=dict)
    actors: frozenset[str] = frozenset()
    again: bool = False
    runners_to_notify: frozenset[str] = frozenset()


def expire(conn: Connection, *, limits: Limits = DEFAULT_LIMITS, at_most: int = 500) -> ExpireResult:
    """Do one pass over all deadlines of runners, claims, starts, runs and stops; each step takes ``at_most`` rows.

    Locked rows are left to the next pass, and so is everything while another pass runs. Silence during an outage is not
    held against runners: outages are recorded first, and while one is open only those steps run that need no runner to
    be heard, or whose window is over twice (promise 5). Idempotent; a missed pass is caught up by the next.
    """
    # Not the lock of the duty "expire", which only the first pass of a run has. The version before this one takes the
    # lock by the same name.
    if not try_duty(conn, "expiry"):
        return ExpireResult()
    current = Pass(conn, read_clocks(conn), limits, at_most)
    steps = ALWAYS
    if not current.clocks.suspended:
        steps = (*ALWAYS, *HEARING) if current.clocks.unheard else (*ALWAYS, *HEARING, *MOVING)
    counts: dict[str, int] = {}
    again = False
    runners: set[str] = set()
    for step in steps:
        done = step(current)
        runners |= done.runners_to_notify
        counts |= {name: number for name, number in done.counts.items() if number}
        again = again or done.full
    changed = counts.keys() - SILENT
    # Notify all three: a return to pending or a session's end makes a run claimable, and has events and callbacks.
    actors = frozenset({"dispatch", "broadcast", "callbacks"}) if changed else frozenset()
    return ExpireResult(counts, actors, again, frozenset(runners))
