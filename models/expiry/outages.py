"""Outages: times in which the runners could not be heard, so that their silence is not held against them (promise 5).

An outage is a row of the table ``gaps``. Silence counts anew from the end of the last one (in SQL
``silence_counts_from()``, which is now while all web processes are silent), but no sequence of outages postpones a
decision for ever: twice the window in time that was no outage of Postgres, of the workers or of all web processes is
enough (in SQL ``silent_before()``). Deadlines of runs move by the outages they lived through.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

OUTAGE_AFTER = timedelta(seconds=15)
MIN_ONLINE_RUNNERS = 2  # fewer online runners than this prove nothing about our own outage

EXPIRY_CLOCK, WEB_CLOCK, RUNNERS_CLOCK = "expiry clock", "web clock", "runners clock"
OVERDUE_CLOCK = "runners overdue"


@dataclass(frozen=True, slots=True)
class Readings:
    """Readings of one tick: the clocks before it, and the runners now. Times are those of Postgres.

    ``heard`` is when an online runner was heard last; ``overdue_at`` from when all of them (``online``) are overdue by
    the intervals that each was told; ``overdue_before`` the same before this tick, None with fewer than two.
    """

    now: datetime
    expiry_at: datetime | None = None
    web_at: datetime | None = None
    overdue_before: datetime | None = None
    heard: datetime | None = None
    overdue_at: datetime | None = None
    restarted_at: datetime | None = None
    online: int = 0


@dataclass(frozen=True, slots=True)
class Clocks:
    """Clocks by which one pass of expiry decides.

    ``restarted_at`` is the end of the last outage, from which silence counts anew: now while every online runner is
    overdue (``unheard``), which may be our fault. While ``suspended`` no runner is judged by its silence.
    ``told_intervals`` are the distinct heartbeat intervals of the runners.
    """

    now: datetime
    restarted_at: datetime | None = None
    suspended: bool = False
    unheard: bool = False
    ended_outages: list[tuple[str, datetime, datetime]] = field(default_factory=list)
    told_intervals: tuple[int, ...] = ()


def detect_outages(readings: Readings) -> Clocks:
    """Return the outages that end now and whether one is still open (ARCHITECTURE, Expiry).

    An outage of expiry or of all runners ends now; one of all web processes is recorded by the first heartbeat after
    it. In an outage of all runners every online one, of at least two, is overdue at once: a runner that is told a long
    interval and keeps it makes none, however seldom a runner is heard.
    """
    ended: list[tuple[str, datetime, datetime]] = []
    if readings.expiry_at is not None and readings.now - readings.expiry_at > OUTAGE_AFTER:
        ended.append(("expiry", readings.expiry_at, readings.now))
    if (
        readings.heard is not None
        and readings.overdue_before is not None
        and readings.heard - readings.overdue_before > OUTAGE_AFTER
    ):
        ended.append(("runners", readings.overdue_before, readings.heard))
    unheard = (
        readings.overdue_at is not None
        and readings.online >= MIN_ONLINE_RUNNERS
        and readings.now - readings.overdue_at > OUTAGE_AFTER
    )
    ends = [end for _, _, end in ended] + ([readings.restarted_at] if readings.restarted_at else [])
    restarted_at = readings.now if unheard else max(ends, default=None)
    web_away = readings.web_at is not None and readings.now - readings.web_at > OUTAGE_AFTER
    return Clocks(readings.now, restarted_at, web_away, unheard, ended)


# Return NULL for a clock that was never started.
_READ = text("""
    SELECT clock_timestamp() AS now,
        (SELECT last_run FROM duties WHERE duty = 'expiry clock') AS expiry_at,
        (SELECT last_run FROM duties WHERE duty = 'web clock') AS web_at,
        (SELECT last_run FROM duties WHERE duty = 'runners overdue') AS overdue_before,
        (SELECT max(ended_at) FROM gaps) AS restarted_at,
        n.heard, n.overdue_at, n.online, n.told
    FROM (SELECT max(last_seen) FILTER (WHERE online) AS heard,
              max(last_seen + make_interval(secs => told_interval)) FILTER (WHERE online) AS overdue_at,
              count(*) FILTER (WHERE online) AS online, coalesce(array_agg(DISTINCT told_interval), '{}') AS told
          FROM (SELECT last_seen, told_interval,
                    left_at IS NULL AND lost_at IS NULL AND leave_told_at IS NULL AS online
                FROM runners) r) n
""")

_RECORD = text("""
    INSERT INTO gaps (kind, started_at, ended_at)
    SELECT * FROM unnest(CAST(:kinds AS text[]), CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[]))
""")

# Write 'runners clock' for the version before this one, which serves beside it for a while.
_SET_CLOCKS = text("""
    INSERT INTO duties (duty, last_run)
    SELECT c.duty, c.at FROM (VALUES ('expiry clock', CAST(:now AS timestamptz)),
                                     ('runners clock', CAST(:heard AS timestamptz)),
                                     ('runners overdue', CAST(:overdue_at AS timestamptz))) AS c(duty, at)
    WHERE c.at IS NOT NULL OR c.duty = 'runners overdue'
    ORDER BY c.duty
    ON CONFLICT (duty) DO UPDATE SET last_run = excluded.last_run
""")

_SERVED = text("""
    SELECT served_ago(2 * w.seconds) AS since
    FROM unnest(CAST(:windows AS double precision[])) WITH ORDINALITY AS w(seconds, number)
    ORDER BY w.number
""")

# Write the outage with the heartbeat that ends it: a reader of the fresh heartbeat sees the outage too. If the clock is
# locked, another web process is setting it at this moment, so there is no outage.
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


def read_clocks(conn: Connection) -> Clocks:
    """Record the outages that have ended, set the clocks, and return those by which this pass of expiry decides."""
    row = conn.execute(_READ).one()
    clocks = detect_outages(
        Readings(
            now=row.now,
            expiry_at=row.expiry_at,
            web_at=row.web_at,
            overdue_before=row.overdue_before,
            heard=row.heard,
            overdue_at=row.overdue_at,
            restarted_at=row.restarted_at,
            online=row.online,
        ),
    )
    _record(conn, clocks.ended_outages)
    overdue_at = row.overdue_at if row.online >= MIN_ONLINE_RUNNERS else None
    conn.execute(_SET_CLOCKS, {"now": row.now, "heard": row.heard, "overdue_at": overdue_at})
    return replace(clocks, told_intervals=tuple(row.told))


def begun_before(conn: Connection, clocks: Clocks, windows: Sequence[float]) -> list[datetime]:
    """Return for each window, in seconds, the moment before which it must have begun to be over now.

    A window that an outage cuts short counts anew from its end, unless the window is over twice in time that we served.
    """
    starts = [clocks.now - timedelta(seconds=seconds) for seconds in windows]
    if clocks.restarted_at is None or all(clocks.restarted_at <= start for start in starts):
        return starts
    # Pass floats only: psycopg rejects arrays of mixed numbers; settings are floats, told intervals are not.
    served = conn.execute(_SERVED, {"windows": [float(seconds) for seconds in windows]}).scalars().all()
    return [since if clocks.restarted_at > start else start for start, since in zip(starts, served, strict=True)]


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


def record_heartbeat(conn: Connection, instance: str) -> None:
    """Write a web process's heartbeat; the first one after an outage of all web processes records that outage."""
    conn.execute(_SIGN, {"instance": instance, "gap": OUTAGE_AFTER})
