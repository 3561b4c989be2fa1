"""Compute the nominal times of a schedule. Pure: the same times for the same spec, wherever a computation begins."""

import hashlib
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from heapq import merge
from itertools import islice
from typing import Final

from cronsim import CronSim

from models.schedules.spec import Spec

SECOND: Final = timedelta(seconds=1)
MICROSECOND: Final = timedelta(microseconds=1)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LAST: Final = datetime(9990, 1, 1, tzinfo=UTC)
# The times after a switch of the clock depend on those shortly before it: an expression may step over an hour.
MEMORY: Final = timedelta(hours=2)
# A schedule without a time for so long has none.
HORIZON: Final = timedelta(days=3660)


def due_times(spec: Spec, after: datetime, until: datetime, most: int) -> list[datetime]:
    """Return up to ``most`` times behind ``after`` and up to ``until``, in order, in UTC.

    What a computation from one moment finds, and another from its last time on, is what one over both finds.
    """
    until = min(until, LAST)
    return list(islice(_times(spec, after, until), most))


def next_time(spec: Spec, after: datetime) -> datetime | None:
    """Return the first time behind ``after``; None if there is none within ten years."""
    begin = after if spec.start_at is None else max(after, spec.start_at)
    return next(iter(due_times(spec, after, begin + HORIZON, 1)), None)


def newest_times(spec: Spec, after: datetime, until: datetime, most: int) -> list[datetime]:
    """Return the newest ``most`` times behind ``after`` and up to ``until``, in order.

    Looks at ever longer stretches before ``until``, so that long ones cost no more than those with enough times.
    """
    if most <= 0:
        return []
    stretch = timedelta(seconds=4 * most)
    while True:
        begin = max(after, until - stretch)
        newest = deque(_times(spec, begin, until), maxlen=most)
        if len(newest) == most or begin == after:
            return list(newest)
        stretch *= 4


def jitter(schedule_id: str, moment: datetime, following: datetime | None, most_seconds: int) -> timedelta:
    """Return the delay of a time: the same on every replica, and shorter than the gap to the time that follows."""
    if most_seconds <= 0:
        return timedelta(0)
    longest = timedelta(seconds=most_seconds)
    if following is not None:
        longest = min(longest, following - moment)
    digest = hashlib.sha256(f"{schedule_id}\0{moment.timestamp():.6f}".encode()).digest()
    return timedelta(milliseconds=int.from_bytes(digest[:8], "big") % max(1, longest // timedelta(milliseconds=1)))


def _times(spec: Spec, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the times behind ``after`` and up to ``until``, each once.

    Excluded days behind ``until`` are not looked at: a thousand of an expression that is rare would take centuries.
    """
    after = after.astimezone(UTC)
    if spec.start_at is not None:
        after = max(after, spec.start_at.astimezone(UTC) - MICROSECOND)
    # Begin at whole seconds, since cronsim drops the rest.
    sources = [_of_cron(expression, spec, after, until) for expression in spec.cron]
    if spec.every is not None:
        sources.append(_of_interval(spec.every, spec.offset, spec, after, until))
    sources.append(_of_moments(spec, after))
    last = after
    for moment in merge(*sources):
        if moment > until or (spec.end_at is not None and moment >= spec.end_at):
            return
        if moment > last:
            last = moment
            yield moment


def _of_cron(expression: str, spec: Spec, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the times of an expression, as cron of Debian has them across switches of the clock."""
    begin = _remembering(spec, after)
    last = after
    while begin < LAST:
        for local in CronSim(expression, begin.astimezone(spec.zone)):
            if local.date() in spec.excluded:
                if local > until:
                    return
                # Go on behind the day: it may have 86,400 times.
                begin = _last_second(spec, local)
                break
            moment = local.astimezone(UTC)
            if moment > LAST:
                return
            if moment > last:
                last = moment
                yield moment
        else:
            return


def _remembering(spec: Spec, after: datetime) -> datetime:
    """Return where to begin, so that the times are those of a computation that began before a switch of the clock."""
    local, before = after.astimezone(spec.zone), (after - MEMORY).astimezone(spec.zone)
    return after if local.utcoffset() == before.utcoffset() else after - MEMORY


def _last_second(spec: Spec, local: datetime) -> datetime:
    """Return the last second of an excluded day, or a second later than ``local`` if that is behind it."""
    following = datetime.combine(local.date() + timedelta(days=1), time(), spec.zone)
    return max(following.astimezone(UTC) - SECOND, local.astimezone(UTC))


def _of_interval(every: int, offset: int, spec: Spec, after: datetime, until: datetime) -> Iterator[datetime]:
    step = timedelta(seconds=every)
    number = (after - EPOCH - timedelta(seconds=offset)) // step + 1
    while (moment := EPOCH + timedelta(seconds=offset) + number * step) <= until:
        local = moment.astimezone(spec.zone)
        if local.date() in spec.excluded:
            number = max(number + 1, (_last_second(spec, local) - EPOCH - timedelta(seconds=offset)) // step + 1)
            continue
        yield moment
        number += 1


def _of_moments(spec: Spec, after: datetime) -> Iterator[datetime]:
    ordered = sorted({moment.astimezone(UTC) for moment in spec.at})
    for moment in ordered[bisect_right(ordered, after) :]:
        if moment.astimezone(spec.zone).date() not in spec.excluded:
            yield moment
