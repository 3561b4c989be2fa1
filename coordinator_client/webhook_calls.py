from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote

from coordinator_client.calls import Calls
from coordinator_client.webhook_types import (
    Webhook,
    WebhookCreated,
    WebhookDelivery,
    WebhookDeliveryPage,
    WebhookPage,
)


class WebhookCalls(Calls):
    """Calls about receivers of messages on ends of runs and sessions."""

    async def put_webhook(
        self,
        webhook_id: str,
        url: str,
        events: Sequence[str],
        *,
        agent_name: str | None = None,
        labels: Mapping[str, str] | None = None,
        description: str | None = None,
        disabled: bool = False,
    ) -> Webhook | WebhookCreated:
        """Create a webhook, whose `secret` is in the answer this once, or replace the one with this id.

        Args:
            webhook_id: Name of it: 1 to 128 of `A-Za-z0-9_.:-`.
            url: Address of the receiver.
            events: Such as `run.failed` and `session.finished`.
            agent_name: Only runs and sessions of this agent.
            labels: Only runs with all of these labels.
            description: Text for people, at most 200 characters.
            disabled: Record and send nothing.

        Raises:
            Refused: 422 for an address that may not be used; 409 for an id of another owner.
        """
        body: dict[str, Any] = {"url": url, "events": list(events), "disabled": disabled, "agent_name": agent_name}
        body |= {"labels": None if labels is None else dict(labels), "description": description}
        return cast("Webhook", await self._call("PUT", _path(webhook_id), body=body, expects=("webhook_id",)))

    async def webhooks(self, *, limit: int | None = None, cursor: str | None = None) -> WebhookPage:
        """Return one page of webhooks; for admins those of all owners."""
        query = {"limit": limit, "cursor": cursor}
        return cast("WebhookPage", await self._call("GET", "/webhooks", query=query, expects=("webhooks",)))

    async def webhook(self, webhook_id: str) -> Webhook:
        """Return a webhook without its secrets. Raises `Refused` 404 for an unknown one."""
        return cast("Webhook", await self._call("GET", _path(webhook_id), expects=("webhook_id",)))

    async def delete_webhook(self, webhook_id: str) -> Webhook:
        """Delete a webhook; return it as it was. Raises `Refused` 404 for an unknown one."""
        return cast("Webhook", await self._call("DELETE", _path(webhook_id), expects=("webhook_id",)))

    async def rotate_webhook_secret(self, webhook_id: str) -> WebhookCreated:
        """Return the webhook with a new secret; the former one signs too for 24 hours.

        Raises:
            Refused: 404 for an unknown one; 409 while five secrets sign.
        """
        path = _path(webhook_id) + "/rotate-secret"
        return cast("WebhookCreated", await self._call("POST", path, expects=("secret",)))

    async def test_webhook(self, webhook_id: str) -> WebhookDelivery:
        """Send a message of the type `webhook.test`. Raises `Refused` 404 for an unknown one, 409 if disabled."""
        return cast("WebhookDelivery", await self._call("POST", _path(webhook_id) + "/test", expects=("event_id",)))

    async def webhook_deliveries(
        self, webhook_id: str, *, state: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> WebhookDeliveryPage:
        """Return one page of the messages of a webhook, newest first.

        Args:
            webhook_id: The webhook.
            state: Only `pending`, `delivered` or `failed` ones.
            limit: Most messages of the page.
            cursor: `next_cursor` of the page before.

        Raises:
            Refused: 404 for an unknown webhook.
        """
        query = {"state": state, "limit": limit, "cursor": cursor}
        path = _path(webhook_id) + "/deliveries"
        return cast("WebhookDeliveryPage", await self._call("GET", path, query=query, expects=("deliveries",)))

    async def replay_webhook_delivery(self, webhook_id: str, event_id: str) -> WebhookDelivery:
        """Send a message again, with the same id and body. Raises `Refused` 404 for an unknown one, 409 if disabled."""
        path = f"{_path(webhook_id)}/deliveries/{quote(event_id, safe='')}/replay"
        return cast("WebhookDelivery", await self._call("POST", path, expects=("event_id",)))


def _path(webhook_id: str) -> str:
    return f"/webhooks/{quote(webhook_id, safe='')}"
