"""Sign messages as Standard Webhooks does: HMAC-SHA256 over id, time and body, once with each secret that is valid."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from standardwebhooks.webhooks import Webhook


def signed_headers(message_id: str, at: datetime, payload: str, secrets: Iterable[str]) -> Mapping[str, str]:
    """Return the headers of a message; ``at`` is in UTC."""
    at = at.astimezone(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, at, payload) for secret in secrets),
    }
