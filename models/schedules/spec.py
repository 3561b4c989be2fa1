"""Nominal times of a schedule, as its owner states them."""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from functools import cached_property, lru_cache
from typing import Any, Final

from cronsim import CronSim, CronSimError

from models.schedules.zones import zone

LONGEST_EXPRESSION: Final = 200
MOST_EXPRESSIONS: Final = 10
MOST_MOMENTS: Final = 1000
MOST_EXCEPTIONS: Final = 1000
LONGEST_INTERVAL: Final = 366 * 86_400


class BadExpression(ValueError):
    """Cron expression that cannot be read; the text says which part."""


@dataclass(frozen=True)
class Spec:
    """Union of times: of cron expressions in the zone, of an interval from 1970 on, and single ones.

    ``every`` and ``offset`` in seconds. ``excluded``: days of the zone without times. Times are from ``start_at`` to
    before ``end_at``.
    """

    cron: tuple[str, ...] = ()
    every: int | None = None
    offset: int = 0
    at: tuple[datetime, ...] = ()
    excluded: frozenset[date] = frozenset()
    timezone: str = "UTC"
    start_at: datetime | None = None
    end_at: datetime | None = None

    @cached_property
    def zone(self) -> tzinfo:
        return zone(self.timezone)


def check_expression(expression: str) -> None:
    """Raise BadExpression for one that cronsim does not take, or that could take long."""
    if len(expression) > LONGEST_EXPRESSION:
        raise BadExpression(f"Should have at most {LONGEST_EXPRESSION} characters")
    if not expression.isascii():
        raise BadExpression("Should be ASCII")
    try:
        CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))
    except (CronSimError, ValueError, AssertionError) as refused:
        raise BadExpression(f"Should be a cron expression of 5 or 6 fields: {refused}") from None


def write_spec(spec: Spec) -> str:
    """Return what ``read_spec`` reads, without zone and bounds, which are columns."""
    return json.dumps(
        {
            "cron": list(spec.cron),
            "every_seconds": spec.every,
            "offset_seconds": spec.offset,
            "at": [moment.astimezone(UTC).isoformat() for moment in spec.at],
            "except": sorted(day.isoformat() for day in spec.excluded),
        }
    )


@lru_cache(1024)
def read_spec(text: str, timezone: str, start_at: datetime | None, end_at: datetime | None) -> Spec:
    given: dict[str, Any] = json.loads(text)
    return Spec(
        tuple(given["cron"]),
        given["every_seconds"],
        given["offset_seconds"],
        tuple(datetime.fromisoformat(moment) for moment in given["at"]),
        frozenset(date.fromisoformat(day) for day in given["except"]),
        timezone,
        start_at,
        end_at,
    )
