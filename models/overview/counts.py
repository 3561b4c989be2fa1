"""Count runs: unfinished ones exactly, ended ones by the rollup."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from models.core.callers import Caller
from models.core.statuses import RunStatus
from models.overview.measures import ENDS
from models.overview.rollup import BY_AGENT, BY_NOTHING, HOUR, KEPT_SECONDS, MINUTE, agent_key, rows_of
from models.schema.sql import sql
from models.state.unfinished import CountedBy, count_in_hand, count_pending
from models.state.visibility import owner_filter

# Count by the minute back to a little less than minutes are kept.
_SHORT_SECONDS: Final = KEPT_SECONDS[MINUTE] - HOUR

HEAD = text("""
    SELECT h.last_pos <= s.position AND NOT EXISTS (
            SELECT FROM unnumbered_batches b WHERE b.first_id > h.numbered_below)
        AND NOT EXISTS (SELECT FROM events e WHERE e.feed_pos IS NULL AND e.id > h.numbered_below) AS is_complete,
        CASE WHEN h.last_pos <= s.position THEN now() ELSE coalesce(s.as_of, TIMESTAMPTZ 'epoch') END AS as_of,
        now() AS now
    FROM run_totals_head s CROSS JOIN feed_head h
""")

_ENDED = sql(
    """
    SELECT t.measure, sum(t.number) AS number FROM run_totals t
    WHERE t.step = :step AND t.grouped_by = :grouped_by AND t.owner = :owner
      AND t.measure = ANY(CAST(:measures AS text[])) AND t.period >= :since
      AND (CAST(:agent AS text) IS NULL OR t.label = $agent)
    GROUP BY t.measure
    """,
    agent=agent_key("CAST(:agent AS text)"),
)


@dataclass(frozen=True, slots=True)
class RunCounts:
    """Runs by status. ``waiting``: pending behind another run of the session or a stop; ``ended`` counts ends since
    ``since``, which is the begin of a minute or, more than 47 hours ago, of an hour.

    ``exact``: the ends are complete; else up to ``as_of``.
    """

    ready: int
    delayed: int
    waiting: int
    in_hand: dict[str, int]
    ended: dict[str, int]
    since: datetime
    exact: bool
    as_of: datetime


def owner_asked(caller: Caller, owner: str | None) -> str | None:
    """Return the owner to whose runs a count is limited: the caller's own, for admins the one named."""
    own = owner_filter(caller)
    return owner if own is None else own


def count_runs(
    conn: Connection, caller: Caller, *, since: datetime | None, agent: str | None = None, owner: str | None = None
) -> RunCounts:
    """Return the counts of the caller's runs, of all for an admin; ends of the last 24 hours unless ``since`` is given.

    The rollup is read before the unfinished runs: a run that ends in between is counted once or, until the next look,
    not at all.
    """
    owner = owner_asked(caller, owner)
    head = conn.execute(HEAD).one()
    seconds = 86_400.0 if since is None else (head.now - since).total_seconds()
    step = MINUTE if seconds <= _SHORT_SECONDS else HOUR
    begin = datetime.fromtimestamp((head.now.timestamp() - seconds) // step * step, head.now.tzinfo)
    values = {"step": step, "measures": [measure.value for measure in ENDS], "since": begin, "agent": agent}
    ends = conn.execute(_ENDED, values | rows_of(owner, BY_NOTHING if agent is None else BY_AGENT))
    ended = {status.value: 0 for status in ENDS.values()} | {row.measure: int(row.number) for row in ends}
    pending = count_pending(conn, CountedBy.NOTHING, owner=owner, agent=agent)
    in_hand = {row.status: row.number for row in count_in_hand(conn, CountedBy.NOTHING, owner=owner, agent=agent)}
    return RunCounts(
        ready=sum(row.ready for row in pending),
        delayed=sum(row.delayed for row in pending),
        waiting=sum(row.waiting for row in pending),
        in_hand={
            status.value: in_hand.get(status, 0)
            for status in (RunStatus.CLAIMED, RunStatus.RUNNING, RunStatus.STOPPING)
        },
        ended=ended,
        since=begin,
        exact=head.is_complete,
        as_of=head.as_of,
    )
