"""Send messages to webhooks: each is leased to one process, which records what came of it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, text

from models.auth.audit import Act, AuditedAct, record_acts
from models.core.ids import new_id
from models.core.statuses import DeliveryState
from models.schema.sql import sql

# Pauses after attempts that failed: nine attempts in about 42 hours.
PAUSES: Final = (5.0, 30.0, 120.0, 600.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0)
MOST_ATTEMPTS: Final = len(PAUSES) + 1
# Shorten or lengthen a pause by so much, so that messages that failed together do not come back together.
JITTER: Final = 0.2
# Longer than an attempt, and its record while Postgres is away for a moment: then another process sends it again.
LEASE_SECONDS: Final = 60.0
# Messages of a webhook that are being sent at once, by all processes.
MOST_OF_WEBHOOK: Final = 8
LONGEST_ERROR: Final = 500
MOST_RETIRED: Final = 1_000
_DAY: Final = 86_400.0
GONE: Final = "It answered 410 Gone"
# Name for the audit log of what the coordinator does by itself.
OURSELVES: Final = "coordinator"


class Outcome(StrEnum):
    DELIVERED = "delivered"
    RETRIED = "retried"
    FAILED = "failed"
    # Recorded after the lease had ended: another process sends it, or has.
    SUPERSEDED = "superseded"


_STATES: Final = {Outcome.DELIVERED: DeliveryState.DELIVERED, Outcome.FAILED: DeliveryState.FAILED}


@dataclass(frozen=True, slots=True)
class Delivery:
    """Message to send, and the lease under which its outcome is recorded. ``secrets``: the current one first."""

    delivery_id: int
    lease: str
    webhook_no: int
    webhook_id: str
    event_id: str
    payload: str
    attempts: int
    url: str
    secrets: Sequence[str]


@dataclass(frozen=True, slots=True)
class Attempt:
    """Result of an attempt: the status of the answer, or why there is none; ``retry_after`` in seconds, as it asked."""

    delivery: Delivery
    status: int | None = None
    error: str | None = None
    retry_after: float = 0.0

    @property
    def is_accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_gone(self) -> bool:
        return self.status == 410


# A webhook that another process is looking at is left to it, so that both together lease no more than allowed.
_LOCK_WEBHOOKS = sql("""
    SELECT w.webhook_no FROM webhooks w
    WHERE NOT w.disabled AND EXISTS (
        SELECT 1 FROM webhook_deliveries d
        WHERE d.webhook_no = w.webhook_no AND d.state = $DELIVERY_PENDING AND d.next_at <= now())
    ORDER BY w.webhook_no FOR NO KEY UPDATE OF w SKIP LOCKED
""")

# A message waits for the earlier ones of its session. A lease has ended when its message is due again.
_TAKE = sql("""
    WITH due AS MATERIALIZED (
        SELECT d.delivery_id
        FROM unnest(CAST(:webhooks AS bigint[])) AS h(webhook_no)
        CROSS JOIN LATERAL (
            SELECT d.delivery_id, d.next_at FROM webhook_deliveries d
            WHERE d.webhook_no = h.webhook_no AND d.state = $DELIVERY_PENDING AND d.next_at <= now()
              AND NOT EXISTS (
                SELECT 1 FROM webhook_deliveries e
                WHERE e.webhook_no = d.webhook_no AND e.session_id = d.session_id AND e.session_id <> ''
                  AND e.state = $DELIVERY_PENDING AND e.delivery_id < d.delivery_id)
            ORDER BY d.next_at, d.delivery_id
            LIMIT greatest(0, CAST(:most_of_webhook AS bigint) - (
                SELECT count(*) FROM webhook_deliveries f
                WHERE f.webhook_no = h.webhook_no AND f.lease IS NOT NULL AND f.next_at > now()))
            FOR UPDATE OF d SKIP LOCKED
        ) d
        ORDER BY d.next_at, d.delivery_id LIMIT :most
    )
    UPDATE webhook_deliveries d
    SET lease = :lease, next_at = now() + make_interval(secs => :seconds)
    FROM due, webhooks w
    WHERE d.delivery_id = due.delivery_id AND w.webhook_no = d.webhook_no
    RETURNING d.delivery_id, d.lease, d.webhook_no, w.webhook_id, d.event_id, d.payload, d.attempts, w.url,
        ARRAY(SELECT s.secret FROM webhook_secrets s
              WHERE s.webhook_no = d.webhook_no AND (s.valid_until IS NULL OR s.valid_until > now())
              ORDER BY s.valid_until DESC NULLS FIRST) AS secrets
""")

# Fenced by the lease: after it has ended another process may be sending the message.
_RECORD = sql("""
    UPDATE webhook_deliveries d
    SET state = a.state, attempts = d.attempts + 1, lease = NULL, response_status = a.status, error = a.error,
        next_at = now() + make_interval(secs => a.pause), last_attempt_at = now(),
        ended_at = CASE WHEN a.state <> $DELIVERY_PENDING THEN now() END
    FROM unnest(CAST(:deliveries AS bigint[]), CAST(:leases AS text[]), CAST(:states AS text[]),
        CAST(:statuses AS integer[]), CAST(:errors AS text[]), CAST(:pauses AS float[]))
        AS a(delivery_id, lease, state, status, error, pause)
    WHERE d.delivery_id = a.delivery_id AND d.lease = a.lease AND d.state = $DELIVERY_PENDING
    RETURNING d.delivery_id
""")

# The later messages of a session are not looked at before the one that they wait for; the next one is due with its end.
_FOLLOW = sql("""
    UPDATE webhook_deliveries f SET next_at = CASE WHEN d.state = $DELIVERY_PENDING THEN d.next_at ELSE now() END
    FROM webhook_deliveries d
    WHERE d.delivery_id = ANY(CAST(:recorded AS bigint[])) AND d.session_id <> ''
      AND f.webhook_no = d.webhook_no AND f.session_id = d.session_id AND f.state = $DELIVERY_PENDING
      AND f.delivery_id > d.delivery_id AND f.attempts = 0 AND f.lease IS NULL
      AND CASE WHEN d.state = $DELIVERY_PENDING THEN f.next_at < d.next_at
          ELSE f.next_at > now() AND f.delivery_id = (
            SELECT min(n.delivery_id) FROM webhook_deliveries n
            WHERE n.webhook_no = d.webhook_no AND n.session_id = d.session_id AND n.state = $DELIVERY_PENDING
              AND n.delivery_id > d.delivery_id)
          END
""")

# Not if it has another address meanwhile.
_DISABLE = text("""
    UPDATE webhooks SET disabled = true, disabled_reason = :reason, updated_at = clock_timestamp()
    WHERE webhook_no = :webhook_no AND url = :url AND NOT disabled
    RETURNING webhook_id, owner
""")

# The oldest ones, up to the first that is too young.
_RETIRE = text("""
    DELETE FROM webhook_deliveries d
    USING (SELECT o.delivery_id, o.created_at FROM webhook_deliveries o ORDER BY o.delivery_id LIMIT :most) old
    WHERE d.delivery_id = old.delivery_id AND old.created_at < now() - make_interval(secs => :age)
""")


def take_deliveries(conn: Connection, *, most: int, lease_seconds: float = LEASE_SECONDS) -> list[Delivery]:
    """Lease up to ``most`` messages that are due, at most 8 of a webhook at once, and return them.

    A message whose lease has ended is due again: its process has died, or could not record what came of it. Of a
    session only the oldest message that is not done is taken. Locked rows are left to others.
    """
    webhooks = list(conn.execute(_LOCK_WEBHOOKS).scalars()) if most > 0 else []
    if not webhooks:
        return []
    # A statement of its own: it sees the leases that the former holder of a webhook's lock has committed.
    values = {
        "webhooks": webhooks,
        "most_of_webhook": MOST_OF_WEBHOOK,
        "most": most,
        "lease": new_id("lse_"),
        "seconds": lease_seconds,
    }
    return sorted((Delivery(*row) for row in conn.execute(_TAKE, values)), key=lambda taken: taken.delivery_id)


def record_attempts(conn: Connection, items: Sequence[Attempt]) -> list[Outcome]:
    """Record attempts: delivered, due again after a pause, or failed for good after the ninth. Safe to repeat.

    An answer of 410 fails the message and disables its webhook, which is audited. SUPERSEDED, with nothing recorded,
    when the lease is another's by now. Later messages of its session are due when it is, or else now.
    """
    wanted = [_outcome(item) for item in items]
    recorded = set(
        conn.execute(
            _RECORD,
            {
                "deliveries": [item.delivery.delivery_id for item in items],
                "leases": [item.delivery.lease for item in items],
                "states": [_STATES.get(outcome, DeliveryState.PENDING).value for outcome in wanted],
                "statuses": [item.status for item in items],
                "errors": [None if item.error is None else item.error[:LONGEST_ERROR] for item in items],
                "pauses": [
                    pause_after(item) if outcome is Outcome.RETRIED else 0.0
                    for item, outcome in zip(items, wanted, strict=True)
                ],
            },
        ).scalars()
    )
    conn.execute(_FOLLOW, {"recorded": list(recorded)})
    for item in items:
        if item.is_gone and item.delivery.delivery_id in recorded:
            _disable(conn, item.delivery)
    return [
        outcome if item.delivery.delivery_id in recorded else Outcome.SUPERSEDED
        for item, outcome in zip(items, wanted, strict=True)
    ]


def pause_after(item: Attempt) -> float:
    """Return the seconds until the next attempt: at least those that the receiver asked for, a day at most."""
    pause = PAUSES[min(item.delivery.attempts, len(PAUSES) - 1)] * random.uniform(1 - JITTER, 1 + JITTER)
    return min(max(pause, item.retry_after), _DAY * (1 + JITTER))


def retire_deliveries(conn: Connection, *, older_than_days: float, most: int = MOST_RETIRED) -> int:
    """Drop the oldest messages, whatever became of them; return how many. Safe to repeat."""
    return conn.execute(_RETIRE, {"age": older_than_days * _DAY, "most": most}).rowcount


def _outcome(item: Attempt) -> Outcome:
    if item.is_accepted:
        return Outcome.DELIVERED
    return Outcome.FAILED if item.is_gone or item.delivery.attempts + 1 >= MOST_ATTEMPTS else Outcome.RETRIED


def _disable(conn: Connection, delivery: Delivery) -> None:
    values = {"webhook_no": delivery.webhook_no, "url": delivery.url, "reason": GONE}
    disabled = conn.execute(_DISABLE, values).first()
    if disabled is not None:
        record_acts(conn, [AuditedAct(Act.WEBHOOK_DISABLED, OURSELVES, disabled.webhook_id, disabled.owner)])
