"""Webhooks: receivers of messages about ends of runs and sessions, and what became of the messages."""

import asyncio
import re
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.endpoint import Endpoint
from app.http.bodies import Fault, Invalid, checked, strict_body
from app.http.problems import accepted
from app.http.query import CURSOR, LIMIT, Choice, strict_query
from app.http.serializers import Json, delivery_json, webhook_json
from app.openapi.document import body, query
from app.openapi.responses import AWAY, BAD_CURSOR, INVALID, TOO_LARGE, Responses, answer, problem
from app.schemas.webhooks import (
    WEBHOOK_ID,
    PutWebhook,
    Webhook,
    WebhookCreated,
    WebhookDelivery,
    WebhookDeliveryPage,
    WebhookPage,
)
from app.web import Web
from models.core.callers import Caller
from models.core.ids import new_id
from models.core.statuses import DeliveryState
from models.core.storable_text import storable
from models.webhooks.history import (
    PREFIX_OF_EVENT,
    NewTest,
    ReplayDelivery,
    list_deliveries,
    replay_deliveries,
    send_tests,
)
from models.webhooks.hooks import (
    DeleteWebhook,
    RotateSecret,
    delete_webhooks,
    get_webhook,
    list_webhooks,
    mint_secret,
    put_webhooks,
    rotate_secrets,
)
from models.webhooks.hooks import PutWebhook as Put
from runtime.webhooks.addresses import TargetRefused, Targets, Unresolved

router = APIRouter(prefix="/webhooks", tags=["Webhooks"], route_class=Endpoint)

USUAL_LIMIT: Final = 100
# Wait so long for the addresses of a name. One without any now is accepted: each attempt looks again.
LOOK_UP_SECONDS: Final = 3.0
STATE: Final = Choice("state", "Only messages in this state", among=tuple(DeliveryState))
NO_WEBHOOK: Final[Responses] = {404: problem("No such webhook", "Webhook not found")}
NO_DELIVERY: Final[Responses] = {404: problem("No such webhook or message", "Delivery not found")}
DISABLED: Final[Responses] = {409: problem("The webhook is disabled", "The webhook is disabled: enable it first")}
NO_STORE: Final = {"Cache-Control": "no-store"}


@router.put(
    "/{webhook_id}",
    operation_id="putWebhook",
    openapi_extra=body(PutWebhook),
    responses={
        201: answer("Created; its secret is shown this once", WebhookCreated),
        200: answer("Replaced; its secrets stay", Webhook),
        409: problem("The id is another owner's, or there are too many", "Webhook 'ci-results' already exists"),
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def put_webhook(webhook_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Create a webhook, or replace the one with this id: what is left out gets its default.

    It is told of the caller's own runs and sessions that end from now on; an admin's is told of all.
    """
    if re.fullmatch(WEBHOOK_ID, webhook_id) is None:
        raise Invalid([Fault("webhook_id", ("path", "webhook_id"), f"Should match {WEBHOOK_ID}")])
    given = checked(PutWebhook, await strict_body(request, web.parser, web.settings.submission_bytes))
    await _check_url(Targets(web.settings.webhook_allow), given.url)
    item = Put(
        caller,
        webhook_id,
        mint_secret(),
        given.url,
        tuple(given.events),
        given.agent_name or None,
        given.labels or None,
        given.description or None,
        given.disabled,
    )
    (made,) = await web.writes.write(put_webhooks, [item])
    put = accepted(made)
    if put.secret is None:
        return Json(webhook_json(put.webhook))
    return Json(webhook_json(put.webhook) | {"secret": put.secret}, 201, NO_STORE)


@router.get(
    "",
    operation_id="listWebhooks",
    openapi_extra=query(LIMIT, CURSOR),
    responses={200: answer("Page, by id", WebhookPage), **INVALID, **AWAY},
)
async def read_webhooks(request: Request, web: Web, caller: Caller) -> Response:
    """List webhooks: the caller's own, for an admin all."""
    given = strict_query(request, (LIMIT, CURSOR))
    limit = LIMIT.of(given) or USUAL_LIMIT
    page = await web.reads.autocommit(list_webhooks, caller, limit=limit, after=CURSOR.of(given) or "")
    shown: dict[str, Any] = {"webhooks": [webhook_json(webhook) for webhook in page.webhooks]}
    return Json(shown if page.next_cursor is None else shown | {"next_cursor": page.next_cursor})


@router.get(
    "/{webhook_id}",
    operation_id="getWebhook",
    responses={200: answer("The webhook", Webhook), **NO_WEBHOOK, **AWAY},
)
async def read_webhook(webhook_id: str, web: Web, caller: Caller) -> Response:
    """Return a webhook, without its secrets."""
    return Json(webhook_json(accepted(await web.reads.autocommit(get_webhook, caller, storable(webhook_id)))))


@router.delete(
    "/{webhook_id}",
    operation_id="deleteWebhook",
    responses={200: answer("The webhook as it was", Webhook), **NO_WEBHOOK, **AWAY},
)
async def delete_webhook(webhook_id: str, web: Web, caller: Caller) -> Response:
    """Delete a webhook, its secrets and its messages. One that is being sent may still arrive."""
    (gone,) = await web.writes.write(delete_webhooks, [DeleteWebhook(caller, storable(webhook_id))])
    return Json(webhook_json(accepted(gone)))


@router.post(
    "/{webhook_id}/rotate-secret",
    operation_id="rotateWebhookSecret",
    responses={
        200: answer("The webhook with its new secret, shown this once", WebhookCreated),
        409: problem(
            "Too many secrets", "5 secrets of the webhook sign already: the oldest ends a day after it was replaced"
        ),
        **NO_WEBHOOK,
        **AWAY,
    },
)
async def rotate_secret(webhook_id: str, web: Web, caller: Caller) -> Response:
    """Give a webhook a new secret. Messages are signed with the former one too for 24 hours."""
    item = RotateSecret(caller, storable(webhook_id), mint_secret())
    (rotated,) = await web.writes.write(rotate_secrets, [item])
    shown = accepted(rotated)
    return Json(webhook_json(shown.webhook) | {"secret": shown.secret}, 200, NO_STORE)


@router.post(
    "/{webhook_id}/test",
    operation_id="testWebhook",
    status_code=202,
    responses={202: answer("The message, which is sent soon", WebhookDelivery), **NO_WEBHOOK, **DISABLED, **AWAY},
)
async def test_webhook(webhook_id: str, web: Web, caller: Caller) -> Response:
    """Send a message of the type `webhook.test`, which waits for no other."""
    item = NewTest(caller, storable(webhook_id), new_id(PREFIX_OF_EVENT))
    (made,) = await web.writes.write(send_tests, [item])
    return Json(delivery_json(accepted(made)), 202)


@router.get(
    "/{webhook_id}/deliveries",
    operation_id="listWebhookDeliveries",
    openapi_extra=query(STATE, LIMIT, CURSOR),
    responses={
        200: answer("Page, newest first", WebhookDeliveryPage),
        **NO_WEBHOOK,
        **BAD_CURSOR,
        **INVALID,
        **AWAY,
    },
)
async def read_deliveries(webhook_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """List the messages of a webhook, newest first. They are kept as long as events."""
    given = strict_query(request, (STATE, LIMIT, CURSOR))
    page = accepted(
        await web.reads.autocommit(
            list_deliveries,
            caller,
            storable(webhook_id),
            limit=LIMIT.of(given) or USUAL_LIMIT,
            state=STATE.of(given),
            before=CURSOR.of(given),
        )
    )
    shown: dict[str, Any] = {"deliveries": [delivery_json(delivery) for delivery in page.deliveries]}
    return Json(shown if page.next_cursor is None else shown | {"next_cursor": page.next_cursor})


@router.post(
    "/{webhook_id}/deliveries/{event_id}/replay",
    operation_id="replayWebhookDelivery",
    status_code=202,
    responses={202: answer("The message, which is sent soon", WebhookDelivery), **NO_DELIVERY, **DISABLED, **AWAY},
)
async def replay_delivery(webhook_id: str, event_id: str, web: Web, caller: Caller) -> Response:
    """Send a message again, with the same id and body and new attempts; one that waits is sent now."""
    item = ReplayDelivery(caller, storable(webhook_id), storable(event_id))
    (replayed,) = await web.writes.write(replay_deliveries, [item])
    return Json(delivery_json(accepted(replayed)), 202)


async def _check_url(targets: Targets, url: str) -> None:
    """Raise Invalid for an address to which no message would be sent."""
    try:
        target = targets.parse(url)
        async with asyncio.timeout(LOOK_UP_SECONDS):
            await targets.resolve(target)
    except TargetRefused as refused:
        raise Invalid([Fault("webhook_url", ("body", "url"), str(refused))]) from None
    except (Unresolved, TimeoutError):
        return
