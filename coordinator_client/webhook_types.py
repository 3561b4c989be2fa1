"""Types of the calls of operators, made by scripts/client_types.py."""

from typing import Literal, NotRequired, TypedDict

WebhookEvent = Literal[
    "run.completed",
    "run.failed",
    "run.stopped",
    "session.finished",
    "session.failed",
    "session.stopped",
]


class WebhookCreated(TypedDict):
    """Webhook with its new secret, which is shown this once.

    Attributes:
        owner: Owner of whose runs it is told; null: of all runs.
        url: Address of the receiver: https, and public unless the operator allows others.
        disabled_reason: Why the coordinator disabled it itself.
        created_by: Credential that created it; null while authentication is off.
        secret: Secret by which the receiver verifies messages.
    """

    webhook_id: str
    owner: str | None
    url: str
    events: list[WebhookEvent]
    agent_name: str | None
    labels: dict[str, str]
    description: str | None
    disabled: bool
    disabled_reason: str | None
    created_by: str | None
    created_at: str
    updated_at: str
    secret: str


class Webhook(TypedDict):
    """Receiver of messages about ends of runs and sessions, without its secrets.

    Attributes:
        owner: Owner of whose runs it is told; null: of all runs.
        url: Address of the receiver: https, and public unless the operator allows others.
        disabled_reason: Why the coordinator disabled it itself.
        created_by: Credential that created it; null while authentication is off.
    """

    webhook_id: str
    owner: str | None
    url: str
    events: list[WebhookEvent]
    agent_name: str | None
    labels: dict[str, str]
    description: str | None
    disabled: bool
    disabled_reason: str | None
    created_by: str | None
    created_at: str
    updated_at: str


class WebhookPage(TypedDict):
    """Page of webhooks, by their ids.

    Attributes:
        next_cursor: Cursor of the next page; absent on the last one.
    """

    webhooks: list[Webhook]
    next_cursor: NotRequired[str]


DeliveryState = Literal["pending", "delivered", "failed"]


class WebhookDelivery(TypedDict):
    """Message to a webhook, and what became of it.

    Attributes:
        event_id: Header `webhook-id` of each attempt.
        event_type: Event, or `webhook.test`.
        session_id: Null for a test.
        run_id: Null for an event of a session, and for a test.
        attempts: Attempts that were made, since a replay anew.
        response_status: HTTP status of the last answer; null without one.
        error: Why the last attempt had no answer.
        next_at: Earliest next attempt while it is pending; while one is made, the end of its lease.
    """

    event_id: str
    event_type: str
    session_id: str | None
    run_id: str | None
    state: DeliveryState
    attempts: int
    response_status: int | None
    error: str | None
    created_at: str
    last_attempt_at: str | None
    next_at: str | None
    ended_at: str | None


class WebhookDeliveryPage(TypedDict):
    """Page of the messages of a webhook, newest first.

    Attributes:
        next_cursor: Cursor of the next page; absent on the last one.
    """

    deliveries: list[WebhookDelivery]
    next_cursor: NotRequired[str]
