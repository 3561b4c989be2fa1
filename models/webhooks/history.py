"""Messages of a webhook for people: lists, tests and replays."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Row

from models.core.callers import Caller
from models.core.errors import BadCursor, NotFound, WebhookDisabled
from models.schema.sql import sql
from models.state.cursors import MOST_DIGITS
from models.state.event_sql import iso_text
from models.webhooks.hooks import find_webhook

TEST: Final = "webhook.test"
PREFIX_OF_EVENT: Final = "evt_"


@dataclass(frozen=True, slots=True)
class NewTest:
    """Test message to send; ``event_id`` is new."""

    caller: Caller
    webhook_id: str
    event_id: str


@dataclass(frozen=True, slots=True)
class ReplayDelivery:
    caller: Caller
    webhook_id: str
    event_id: str


@dataclass(frozen=True, slots=True)
class ShownDelivery:
    """Message, and what became of it; ``next_at``: its next attempt, or the end of the one in progress."""

    event_id: str
    event_type: str
    session_id: str
    run_id: str | None
    state: str
    attempts: int
    response_status: int | None
    error: str | None
    created_at: datetime
    last_attempt_at: datetime | None
    next_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    deliveries: list[ShownDelivery]
    next_cursor: str | None


DeliveryResult: TypeAlias = ShownDelivery | NotFound | WebhookDisabled

_SHOWN: Final = sql("""event_id, event_type, session_id, run_id, state, attempts, response_status, error, created_at,
    last_attempt_at, CASE WHEN state = $DELIVERY_PENDING THEN next_at END AS next_at, ended_at""").text

_ADD_TEST = sql(
    """
    INSERT INTO webhook_deliveries (webhook_no, event_id, event_type, session_id, payload)
    VALUES (:webhook_no, :event_id, '$test', '',
        '{"type":"$test","timestamp":"' || $moment || '","data":{"webhook_id":' || :shown_id || '}}')
    ON CONFLICT (webhook_no, event_id) DO NOTHING
    """,
    test=TEST,
    moment=iso_text("now()"),
)

_ONE = sql(
    "SELECT $shown FROM webhook_deliveries WHERE webhook_no = :webhook_no AND event_id = :event_id", shown=_SHOWN
)

# One that is being sent is left to its process.
_REPLAY = sql("""
    UPDATE webhook_deliveries
    SET state = $DELIVERY_PENDING, attempts = 0, lease = NULL, ended_at = NULL, next_at = now()
    WHERE webhook_no = :webhook_no AND event_id = :event_id AND NOT (lease IS NOT NULL AND next_at > now())
""")

_PAGE: Final = {
    is_filtered: sql(
        """
        SELECT delivery_id, $shown FROM webhook_deliveries
        WHERE webhook_no = :webhook_no AND delivery_id < coalesce(CAST(:before AS bigint), $endless) $filtered
        ORDER BY delivery_id DESC LIMIT :most
        """,
        shown=_SHOWN,
        endless=str(2**63 - 1),
        filtered="AND state = :state" if is_filtered else "",
    )
    for is_filtered in (False, True)
}


def send_tests(conn: Connection, items: Sequence[NewTest]) -> list[DeliveryResult]:
    """Make a test message for each webhook, which waits for no other. Safe to repeat with the same event."""
    return [_test(conn, item) for item in items]


def _test(conn: Connection, item: NewTest) -> DeliveryResult:
    found = find_webhook(conn, item.caller, item.webhook_id)
    if found is None:
        return NotFound("webhook", item.webhook_id)
    if found.disabled:
        return WebhookDisabled(item.webhook_id)
    own = {"webhook_no": found.webhook_no, "event_id": item.event_id}
    conn.execute(_ADD_TEST, own | {"shown_id": json.dumps(item.webhook_id)})
    return _shown(conn.execute(_ONE, own).one())


def replay_deliveries(conn: Connection, items: Sequence[ReplayDelivery]) -> list[DeliveryResult]:
    """Send messages again, with new attempts and the same id and body; one that waits is due now. Safe to repeat."""
    return [_replay(conn, item) for item in items]


def _replay(conn: Connection, item: ReplayDelivery) -> DeliveryResult:
    found = find_webhook(conn, item.caller, item.webhook_id)
    if found is None:
        return NotFound("webhook", item.webhook_id)
    own = {"webhook_no": found.webhook_no, "event_id": item.event_id}
    if conn.execute(_ONE, own).first() is None:
        return NotFound("delivery", item.event_id)
    if found.disabled:
        return WebhookDisabled(item.webhook_id)
    conn.execute(_REPLAY, own)
    return _shown(conn.execute(_ONE, own).one())


def list_deliveries(
    conn: Connection,
    caller: Caller,
    webhook_id: str,
    *,
    limit: int,
    state: str | None = None,
    before: str | None = None,
) -> DeliveryPage | NotFound | BadCursor:
    """Return a page of the messages of a webhook, newest first."""
    if before is not None and not (before.isascii() and before.isdigit() and len(before) <= MOST_DIGITS):
        return BadCursor(before)
    found = find_webhook(conn, caller, webhook_id)
    if found is None:
        return NotFound("webhook", webhook_id)
    values: dict[str, Any] = {"webhook_no": found.webhook_no, "most": limit + 1}
    values["before"] = None if before is None else int(before)
    if state is not None:
        values["state"] = state
    rows: Sequence[Row[Any]] = conn.execute(_PAGE[state is not None], values).all()
    shown = [_shown(row[1:]) for row in rows[:limit]]
    return DeliveryPage(shown, str(rows[limit - 1].delivery_id) if len(rows) > limit else None)


def _shown(row: Sequence[Any]) -> ShownDelivery:
    return ShownDelivery(*row)
