from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection

from models.claims.claim import Ask
from models.claims.dispatch import HELD, SEEN_SECONDS, USABLE
from models.claims.matching import OFFER_COLUMNS_OF_N, Offer, offer_of
from models.core.limits import Limits
from models.runners.listing import IS_KNOWN, IS_ONLINE, TOLD, TOLD_CAPACITY
from models.schema.sql import sql

MOST_RUNNERS: Final = 1_000
MOST_POLLS_EACH: Final = 32


class RunnerState(StrEnum):
    """State of a runner for a run that it matches; each field of ``OfMatching`` is one."""

    FREE = "free"
    FULL = "full"
    STALE = "stale"
    NOT_POLLING = "not_polling"
    EXCLUDED = "excluded"
    LEAVING = "leaving"
    DRAINING = "draining"


@dataclass(slots=True)
class RunnerFacts:
    """Registration with what decides which runs it gets.

    ``asks``: its polls that dispatch may give runs to now; ``former_polls``: number of polls that wait of a process
    which this registration has replaced. ``seconds_in_hand``: time since the claims of its runs in hand, together.
    """

    offer: Offer
    runner_id: str
    owner: str | None
    now: datetime
    registered_at: datetime
    last_seen: datetime
    capacity: int | None
    in_hand: int
    seconds_in_hand: float
    lost_at: datetime | None
    leave_requested_at: datetime | None
    draining_since: datetime | None
    drain_reason: str | None
    stale: bool
    known: bool
    asks: list[Ask] = field(default_factory=list)
    former_polls: int = 0

    @property
    def live(self) -> bool:
        return self.lost_at is None and self.leave_requested_at is None

    @property
    def full(self) -> bool:
        """Return whether it takes no more: by its capacity, or as its own polls say, which want none."""
        if self.capacity is not None and self.in_hand >= self.capacity:
            return True
        return bool(self.asks) and all(ask.wanted == 0 for ask in self.asks)

    def state(self, excluded_registrations: Collection[int]) -> RunnerState:
        if self.offer.registration in excluded_registrations:
            return RunnerState.EXCLUDED
        if self.asks:
            return RunnerState.FULL if self.full else RunnerState.FREE
        if self.leave_requested_at is not None:
            return RunnerState.LEAVING
        if self.draining_since is not None:
            return RunnerState.DRAINING
        if self.lost_at is not None or self.stale:
            return RunnerState.STALE
        return RunnerState.FULL if self.full else RunnerState.NOT_POLLING


_FACTS: Final = 14

_READ: Final = sql(
    """
    SELECT n.runner_id, n.owner, now() AS now, n.registered_at, n.last_seen, $capacity AS capacity, hand.runs,
        coalesce(hand.seconds, 0) AS seconds, n.lost_at, n.leave_requested_at, n.draining_since,
        n.drain_reason, NOT ($is_online) AS stale, ($is_known) IS TRUE AS known,
        w.poll_id, w.instance, w.wanted, w.subject, $usable AS usable, w.registration <> n.registration AS former,
        $offer
    FROM runners n
    JOIN $told
    LEFT JOIN LATERAL (
        SELECT count(*) AS runs, CAST(sum(extract(epoch FROM now() - r.claimed_at)) AS float) AS seconds FROM runs r
        WHERE r.runner_id = n.runner_id AND r.status IN $IN_HAND
    ) hand ON true
    LEFT JOIN LATERAL (
        SELECT w.* FROM waiting_polls w WHERE w.runner_id = n.runner_id AND $held ORDER BY w.poll_id LIMIT :polls
    ) w ON true
    WHERE n.runner_id = ANY(
        ARRAY(SELECT n.runner_id FROM runners n WHERE $is_known ORDER BY n.runner_id LIMIT :most)
        || CAST(:runner_id AS text))
    ORDER BY n.runner_id, w.poll_id
    """,
    is_online=IS_ONLINE,
    is_known=IS_KNOWN,
    usable=USABLE,
    held=HELD,
    told=TOLD,
    capacity=TOLD_CAPACITY,
    offer=OFFER_COLUMNS_OF_N,
)


def read_runners(conn: Connection, limits: Limits, runner_id: str | None = None) -> list[RunnerFacts]:
    """Return at most ``MOST_RUNNERS`` runners that have not left and are not forgotten, and the one that is asked for.

    One statement, so that polls and counts fit together.
    """
    rows = conn.execute(
        _READ,
        {
            "stale_after": limits.stale_after,
            "forget": limits.forget_runner,
            "seen": SEEN_SECONDS,
            "polls": MOST_POLLS_EACH,
            "most": MOST_RUNNERS,
            "runner_id": runner_id,
        },
    )
    found: dict[str, RunnerFacts] = {}
    for row in rows:
        poll_id, instance, wanted, subject, usable, former, *offer = row[_FACTS:]
        runner = found.get(row.runner_id)
        if runner is None:
            runner = found[row.runner_id] = RunnerFacts(offer_of(*offer), *row[:_FACTS])
        if poll_id is not None and usable:
            runner.asks.append(Ask(poll_id, row.runner_id, wanted, instance, subject))
        elif poll_id is not None and former:
            runner.former_polls += 1
    return list(found.values())
