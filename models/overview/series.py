"""Curves of the history from the rollup."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias

from sqlalchemy import Connection, text

from models.core.callers import Caller
from models.overview.counts import HEAD, owner_asked
from models.overview.measures import ENDS, Measure, percentile
from models.overview.rollup import BY_AGENT, BY_NOTHING, BY_PROFILE, HOUR, MINUTE, rows_of

STEPS: Final = (60, 300, 3600, 86_400)
MOST_POINTS: Final = 1_500
# Name no more curves than these; the rest is one of its own.
MOST_CURVES: Final = 20
OTHER: Final = "other"
SHARES: Final = (0.5, 0.95, 0.99)


class Metric(StrEnum):
    SUBMITTED = "submitted"
    ENDED = "ended"
    WAIT = "wait"
    DURATION = "duration"


class By(StrEnum):
    STATUS = "status"
    PROFILE = "profile"
    AGENT = "agent"


MEASURES: Final = {
    Metric.SUBMITTED: (Measure.SUBMITTED,),
    Metric.ENDED: tuple(ENDS),
    Metric.WAIT: (Measure.WAIT,),
    Metric.DURATION: (Measure.DURATION,),
}
HISTOGRAMS: Final = (Metric.WAIT, Metric.DURATION)
# Unix time, then a number, or the seconds below which 50, 95 and 99 % lie and their number.
Point: TypeAlias = list[float | None]

# The smaller curves are added up here: names of agents are any number of texts.
_READ = text("""
    WITH counted AS MATERIALIZED (
        SELECT CAST(extract(epoch FROM date_bin(make_interval(secs => :step), t.period, TIMESTAMPTZ 'epoch')) AS bigint)
                AS at,
            CASE WHEN CAST(:by_measure AS boolean) THEN t.measure ELSE t.label END AS label,
            t.bucket, sum(t.number) AS number
        FROM run_totals t
        WHERE t.step = :kept AND t.grouped_by = :grouped_by AND t.owner = :owner
          AND t.measure = ANY(CAST(:measures AS text[])) AND t.period >= :since AND t.period < :until
        GROUP BY 1, 2, 3
    ), shown AS (
        SELECT label FROM counted GROUP BY label ORDER BY sum(number) DESC, label LIMIT :curves
    )
    SELECT c.at, coalesce(s.label, :other) AS label, c.bucket, sum(c.number) AS number
    FROM counted c LEFT JOIN shown s USING (label)
    GROUP BY 1, 2, 3
""")
_GROUPINGS: Final = {By.PROFILE: BY_PROFILE, By.AGENT: BY_AGENT}


@dataclass(frozen=True, slots=True)
class Curve:
    label: str
    points: list[Point]


@dataclass(frozen=True, slots=True)
class Series:
    """Curves with a point for each period in which something happened. ``as_of``: complete up to this time."""

    since: datetime
    until: datetime
    as_of: datetime
    curves: list[Curve]


def read_series(
    conn: Connection,
    caller: Caller,
    metric: Metric,
    by: By | None,
    *,
    step: int,
    since: datetime,
    until: datetime,
    owner: str | None = None,
) -> Series:
    """Return curves of the caller's runs, of all for an admin, the largest MOST_CURVES and the rest as `other`.

    ``since`` is moved to the begin of its period.
    """
    begin = datetime.fromtimestamp(since.timestamp() // step * step, since.tzinfo)
    values = {
        "step": step,
        "by_measure": by is By.STATUS,
        "kept": MINUTE if step < HOUR else HOUR,
        "measures": [measure.value for measure in MEASURES[metric]],
        "since": begin,
        "until": until,
        "curves": MOST_CURVES,
        "other": OTHER,
        **rows_of(owner_asked(caller, owner), BY_NOTHING if by is None else _GROUPINGS.get(by, BY_NOTHING)),
    }
    as_of = conn.execute(HEAD).one().as_of
    rows = conn.execute(_READ, values).all()
    found: defaultdict[str, defaultdict[int, dict[int, int]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[row.label][row.at][row.bucket] = int(row.number)
    curves = [
        Curve(label, [_point(metric, at, periods[at]) for at in sorted(periods)])
        for label, periods in sorted(found.items())
    ]
    return Series(begin, until, as_of, curves)


def _point(metric: Metric, at: int, buckets: dict[int, int]) -> Point:
    number = sum(buckets.values())
    if metric not in HISTOGRAMS:
        return [at, number]
    return [at, *(percentile(buckets, share) for share in SHARES), number]
