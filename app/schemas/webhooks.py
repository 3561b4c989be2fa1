from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from app.schemas.base import Described, NextCursor, RunId, SessionId, Text, Timestamp, Validated
from app.schemas.runs import Labels
from models.core.statuses import DeliveryState, WebhookEvent

# `.` and `..` would be taken out of addresses.
WEBHOOK_ID = r"(?!\.{1,2}$)[A-Za-z0-9_.:-]{1,128}"
LONGEST_DESCRIPTION = 200
LONGEST_URL = 2_000

WebhookId = Annotated[str, Field(examples=["ci-results"])]
EventId = Annotated[str, Field(examples=["evt_0197f7a0c3d17c1e8f2a4b6c8d0e1f2a"])]
Url = Annotated[
    str,
    Field(
        description="Address of the receiver: https, and public unless the operator allows others",
        examples=["https://example.com/hooks/coordinator"],
    ),
]
EventName = Literal[
    "run.completed", "run.failed", "run.stopped", "session.finished", "session.failed", "session.stopped"
]


def _each_once(events: list[str]) -> list[str]:
    if len(set(events)) < len(events):
        raise ValueError("Should name each event once")
    return events


class PutWebhook(Validated):
    """Webhook to create, or to put in the place of the one with this id."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "url": "https://example.com/hooks/coordinator",
                    "events": ["run.failed", "session.finished"],
                    "labels": {"team": "sky"},
                }
            ]
        },
    )

    url: Annotated[str, Field(max_length=LONGEST_URL, description="Address of the receiver")]
    events: Annotated[
        list[EventName], Field(min_length=1, description="Ends that it is told of"), AfterValidator(_each_once)
    ]
    agent_name: Annotated[Text | None, Field(description="Only runs and sessions of this agent")] = None
    labels: Annotated[
        Labels, Field(description="Only runs with all of these labels, and sessions whose newest run has them")
    ] = None
    description: Annotated[str | None, Field(max_length=LONGEST_DESCRIPTION, description="Text for people")] = None
    disabled: Annotated[bool, Field(description="Nothing is recorded and nothing sent while it is true")] = False


class Webhook(Described):
    """Receiver of messages about ends of runs and sessions, without its secrets."""

    webhook_id: WebhookId
    owner: Annotated[
        str | None, Field(description="Owner of whose runs it is told; null: of all runs", examples=["ann"])
    ]
    url: Url
    events: list[WebhookEvent]
    agent_name: Annotated[str | None, Field(examples=[None])]
    labels: Annotated[dict[str, str], Field(examples=[{"team": "sky"}])]
    description: Annotated[str | None, Field(examples=[None])]
    disabled: Annotated[bool, Field(examples=[False])]
    disabled_reason: Annotated[
        str | None, Field(description="Why the coordinator disabled it itself", examples=["It answered 410 Gone"])
    ]
    created_by: Annotated[
        str | None, Field(description="Credential that created it; null while authentication is off", examples=[None])
    ]
    created_at: Timestamp
    updated_at: Timestamp


class WebhookCreated(Webhook):
    """Webhook with its new secret, which is shown this once."""

    secret: Annotated[
        str,
        Field(
            description="Secret by which the receiver verifies messages",
            examples=["whsec_bm90IGEgc2VjcmV0IG9mIG91cnM="],
        ),
    ]


class WebhookPage(Described):
    """Page of webhooks, by their ids."""

    webhooks: list[Webhook]
    next_cursor: NextCursor = None


class WebhookDelivery(Described):
    """Message to a webhook, and what became of it."""

    event_id: Annotated[EventId, Field(description="Header `webhook-id` of each attempt")]
    event_type: Annotated[str, Field(description="Event, or `webhook.test`", examples=["run.failed"])]
    session_id: Annotated[SessionId | None, Field(description="Null for a test")]
    run_id: Annotated[RunId | None, Field(description="Null for an event of a session, and for a test")]
    state: Annotated[DeliveryState, Field(examples=["pending"])]
    attempts: Annotated[int, Field(description="Attempts that were made, since a replay anew", examples=[2])]
    response_status: Annotated[
        int | None, Field(description="HTTP status of the last answer; null without one", examples=[503])
    ]
    error: Annotated[str | None, Field(description="Why the last attempt had no answer", examples=[None])]
    created_at: Timestamp
    last_attempt_at: Timestamp | None
    next_at: Annotated[
        Timestamp | None,
        Field(description="Earliest next attempt while it is pending; while one is made, the end of its lease"),
    ]
    ended_at: Annotated[Timestamp | None, Field(examples=[None])]


class WebhookDeliveryPage(Described):
    """Page of the messages of a webhook, newest first."""

    deliveries: list[WebhookDelivery]
    next_cursor: NextCursor = None
