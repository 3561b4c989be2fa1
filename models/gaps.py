"""Gaps of our own: stretches in which nobody could hear the runners, so that their silence says nothing (promise 5).

A gap is a row. Silence counts from the end of the last one (in SQL ``silence_counts_from()``, which is now while all
web processes are silent); deadlines of runs move by the gaps they lived through.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from models.base import Limits

GAP = timedelta(seconds=15)
SOME = 2  # so many runners do not fall silent by themselves at once, as a rule

EXPIRY_CLOCK, WEB_CLOCK, RUNNERS_CLOCK = "expiry clock", "web clock", "runners clock"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the clocks showed before this tick, and what is to be seen now. Times are the database's.

    ``heard`` is when any runner was heard last; ``company`` how many runners were online at ``heard_before`` and at
    ``heard``; ``lost_window`` the longest silence that one of them may keep.
    """

    now: datetime
    expiry_at: datetime | None = None
    web_at: datetime | None = None
    heard_before: datetime | None = None
    heard: datetime | None = None
    restarted_at: datetime | None = None
    company_before: int = 0
    company: int = 0
    lost_window: float = 0


@dataclass(frozen=True, slots=True)
class Clocks:
    """What expiry goes by in this pass.

    ``restarted_at`` is the end of the last gap, from which silence counts anew; while ``blind`` nothing is judged that
    needs the runners to be heard.
    """

    now: datetime
    restarted_at: datetime | None = None
    blind: bool = False
    gaps: list[tuple[str, datetime, datetime]] = field(default_factory=list)

    def counted_from(self, moment: datetime) -> datetime:
        """Return from when a window that began at ``moment`` counts."""
        return moment if self.restarted_at is None else max(moment, self.restarted_at)


def judge(seen: Seen) -> Clocks:
    """Find the gaps that end now and whether one is still open (ARCHITECTURE, Expiry).

    Expiry's own gap and one in which no runner was heard end now; one of all web processes is noted by the first that
    gives a sign again. That nobody is heard may also mean that all runners died together: judgement is put off for
    one more window, not for ever.
    """
    ended: list[tuple[str, datetime, datetime]] = []
    if seen.expiry_at is not None and seen.now - seen.expiry_at > GAP:
        ended.append(("expiry", seen.expiry_at, seen.now))
    if (
        seen.heard is not None
        and seen.heard_before is not None
        and seen.heard - seen.heard_before > GAP
        and seen.company_before >= SOME
    ):
        ended.append(("runners", seen.heard_before, seen.heard))
    ends = [end for _, _, end in ended] + ([seen.restarted_at] if seen.restarted_at else [])
    restarted_at = max(ends, default=None)
    web_away = seen.web_at is not None and seen.now - seen.web_at > GAP
    unheard = False
    if seen.heard is not None and seen.company >= SOME:
        quiet = seen.now - max([seen.heard, *([restarted_at] if restarted_at else [])])
        unheard = GAP < quiet <= timedelta(seconds=2 * seen.lost_window)
    return Clocks(seen.now, restarted_at, web_away or unheard, ended)


# NULL where a clock was never started: then there is nothing to compare with.
_READ = text("""
    SELECT clock_timestamp() AS now,
        (SELECT last_run FROM duties WHERE duty = 'expiry clock') AS expiry_at,
        (SELECT last_run FROM duties WHERE duty = 'web clock') AS web_at,
        (SELECT last_run FROM duties WHERE duty = 'runners clock') AS heard_before,
        (SELECT max(last_seen) FROM runners WHERE left_at IS NULL) AS heard,
        (SELECT max(ended_at) FROM gaps) AS restarted_at
""")

# A runner was online at a moment when it was heard since, or not long before.
_COMPANY = text("""
    SELECT count(*) FILTER (WHERE n.last_seen >= CAST(:heard_before AS timestamptz) - n.stale_window
            AND n.registered_at <= CAST(:heard_before AS timestamptz)) AS before,
        count(*) FILTER (WHERE n.last_seen >= CAST(:heard AS timestamptz) - n.stale_window) AS now,
        coalesce(max(n.lost_window), 0) AS lost_window
    FROM (SELECT last_seen, registered_at,
              make_interval(secs => greatest(CAST(:stale_after AS float), 2 * told_interval)) AS stale_window,
              greatest(CAST(:lost_after AS float), 3 * told_interval) AS lost_window
          FROM runners WHERE left_at IS NULL AND lost_at IS NULL AND leave_told_at IS NULL) n
""")

_RECORD = text("""
    INSERT INTO gaps (kind, started_at, ended_at)
    SELECT * FROM unnest(CAST(:kinds AS text[]), CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[]))
""")

_SET_CLOCKS = text("""
    INSERT INTO duties (duty, last_run)
    SELECT c.duty, c.at FROM (VALUES ('expiry clock', CAST(:now AS timestamptz)),
                                     ('runners clock', CAST(:heard AS timestamptz))) AS c(duty, at)
    WHERE c.at IS NOT NULL
    ORDER BY c.duty
    ON CONFLICT (duty) DO UPDATE SET last_run = excluded.last_run
""")

# The gap is written with the sign that ends it: whoever sees the fresh sign sees the gap too. A clock that somebody
# else holds is being set by another web process at this moment, so there is no gap.
_SIGN = text("""
    WITH sign AS (
        INSERT INTO instances (instance, seen_at) VALUES (:instance, clock_timestamp())
        ON CONFLICT (instance) DO UPDATE SET seen_at = excluded.seen_at
    ), former AS (
        SELECT last_run FROM duties WHERE duty = 'web clock' FOR UPDATE SKIP LOCKED
    ), gap AS (
        INSERT INTO gaps (kind, started_at, ended_at)
        SELECT 'web', former.last_run, clock_timestamp() FROM former
        WHERE former.last_run < clock_timestamp() - CAST(:gap AS interval)
    ), moved AS (
        UPDATE duties d SET last_run = clock_timestamp() FROM former WHERE d.duty = 'web clock'
    )
    INSERT INTO duties (duty, last_run) SELECT 'web clock', clock_timestamp()
    WHERE NOT EXISTS (SELECT 1 FROM duties WHERE duty = 'web clock')
    ON CONFLICT (duty) DO NOTHING
""")


def read_clocks(conn: Connection, limits: Limits) -> Clocks:
    """Note the gaps that have ended, set the clocks, and return what this pass of expiry goes by."""
    row = conn.execute(_READ).one()
    company = None
    if row.heard is not None and max(row.now - row.heard, row.heard - (row.heard_before or row.heard)) > GAP:
        parameters = {
            "heard": row.heard,
            "heard_before": row.heard_before,
            "stale_after": limits.stale_after,
            "lost_after": limits.lost_after,
        }
        company = conn.execute(_COMPANY, parameters).one()
    clocks = judge(
        Seen(
            now=row.now,
            expiry_at=row.expiry_at,
            web_at=row.web_at,
            heard_before=row.heard_before,
            heard=row.heard,
            restarted_at=row.restarted_at,
            company_before=company.before if company else 0,
            company=company.now if company else 0,
            lost_window=company.lost_window if company else 0,
        ),
    )
    _record(conn, clocks.gaps)
    conn.execute(_SET_CLOCKS, {"now": row.now, "heard": row.heard})
    return clocks


def _record(conn: Connection, ended: Sequence[tuple[str, datetime, datetime]]) -> None:
    if ended:
        conn.execute(
            _RECORD,
            {
                "kinds": [kind for kind, _, _ in ended],
                "starts": [start for _, start, _ in ended],
                "ends": [end for _, _, end in ended],
            },
        )


def sign_web(conn: Connection, instance: str) -> None:
    """Write a web process's sign of life; the first one after a gap of all web processes notes that gap."""
    conn.execute(_SIGN, {"instance": instance, "gap": GAP})
