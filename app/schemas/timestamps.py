from datetime import UTC, datetime, timedelta
from typing import Any

FARTHEST_SECONDS = 315_360_000.0


def within_ten_years(value: float | datetime) -> float | datetime:
    if isinstance(value, datetime):
        try:
            value = value.astimezone(UTC)
        except OverflowError as error:
            raise ValueError("Timestamp is out of range") from error
        if value > datetime.now(UTC) + timedelta(seconds=FARTHEST_SECONDS):
            raise ValueError("Timestamp is more than ten years away")
    return value


def utc_by_default(value: Any) -> Any:
    """Take a timestamp without an offset as UTC; reject digits in quotes."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("Should be an ISO 8601 timestamp") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def offset_required(value: Any) -> Any:
    """Require an offset in a future timestamp: a local time taken for UTC would start a run hours early or late."""
    if isinstance(value, str):
        moment = utc_by_default(value)
        if datetime.fromisoformat(value).tzinfo is None:
            raise ValueError(f"Should have an offset from UTC, like {value}Z or {value}+02:00")
        return moment
    return value
