"""Webhooks of owners: created, changed, deleted, and their secrets.

A user has those that are told of its own runs and sessions; those of an admin are told of all.
"""

import base64
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import orjson
from sqlalchemy import Connection, Row, text

from models.auth.audit import Act, audited_act, record_acts
from models.core.callers import Caller, Role
from models.core.errors import NotFound, TooManySecrets, TooManyWebhooks, WebhookExists
from models.schema.sql import sql

MOST_WEBHOOKS: Final = 100
# Secrets of a webhook that sign at once: the current one, and former ones for a day.
MOST_SECRETS: Final = 5
FORMER_SECONDS: Final = 86_400
SIGNING_PREFIX: Final = "whsec_"


@dataclass(frozen=True, slots=True)
class PutWebhook:
    """Webhook to create or to replace. ``secret`` is for a new one; ``labels``: all must be those of a run."""

    caller: Caller
    webhook_id: str
    secret: str
    url: str
    events: tuple[str, ...]
    agent_name: str | None = None
    labels: Mapping[str, str] | None = None
    description: str | None = None
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class DeleteWebhook:
    caller: Caller
    webhook_id: str


@dataclass(frozen=True, slots=True)
class RotateSecret:
    caller: Caller
    webhook_id: str
    secret: str


@dataclass(frozen=True, slots=True)
class Webhook:
    webhook_id: str
    owner: str | None
    url: str
    events: Sequence[str]
    agent_name: str | None
    labels: Mapping[str, str] | None
    description: str | None
    disabled: bool
    disabled_reason: str | None
    created_by: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ShownSecret:
    """Webhook with its new secret, which is shown this once; None: it was there before, with a secret of its own."""

    webhook: Webhook
    secret: str | None


@dataclass(frozen=True, slots=True)
class WebhookPage:
    webhooks: list[Webhook]
    next_cursor: str | None


PutResult: TypeAlias = ShownSecret | WebhookExists | TooManyWebhooks
RotateResult: TypeAlias = ShownSecret | NotFound | TooManySecrets
WebhookResult: TypeAlias = Webhook | NotFound


class Named(Protocol):
    @property
    def webhook_id(self) -> str: ...


Item = TypeVar("Item", bound=Named)
Result = TypeVar("Result")

_SHOWN: Final = """webhook_id, owner, url, events, agent_name, labels, description, disabled, disabled_reason,
    created_by, created_at, updated_at"""

_COUNT = text("SELECT count(*) FROM webhooks WHERE owner IS NOT DISTINCT FROM CAST(:owner AS text)")

_ADD = sql(
    """
    INSERT INTO webhooks (webhook_id, owner, url, events, agent_name, labels, description, disabled, after_position,
        created_by)
    SELECT :webhook_id, :owner, :url, CAST(:events AS text[]), :agent_name, CAST(:labels AS jsonb), :description,
        :disabled, h.last_pos, :by
    FROM feed_head h
    ON CONFLICT (webhook_id) DO NOTHING
    RETURNING webhook_no, $shown
    """,
    shown=_SHOWN,
)

_LOCK = sql("SELECT webhook_no, $shown FROM webhooks WHERE webhook_id = :webhook_id FOR UPDATE", shown=_SHOWN)

# What ends while it is disabled is not told, also not later.
_REPLACE = sql(
    """
    UPDATE webhooks w
    SET url = :url, events = CAST(:events AS text[]), agent_name = :agent_name, labels = CAST(:labels AS jsonb),
        description = :description, disabled = :disabled, updated_at = clock_timestamp(),
        disabled_reason = CASE WHEN :disabled THEN w.disabled_reason END,
        after_position = CASE WHEN w.disabled THEN h.last_pos ELSE w.after_position END
    FROM feed_head h
    WHERE w.webhook_no = :webhook_no
    RETURNING $shown
    """,
    shown=_SHOWN,
)

_ADD_SECRET = text("INSERT INTO webhook_secrets (webhook_no, secret) VALUES (:webhook_no, :secret)")

_HAS_SECRET = text("SELECT 1 FROM webhook_secrets WHERE webhook_no = :webhook_no AND secret = :secret")

_DROP_EXPIRED = text("DELETE FROM webhook_secrets WHERE webhook_no = :webhook_no AND valid_until <= now()")

_COUNT_SECRETS = text("SELECT count(*) FROM webhook_secrets WHERE webhook_no = :webhook_no")

_RETIRE_SECRET = text("""
    UPDATE webhook_secrets SET valid_until = now() + make_interval(secs => :seconds)
    WHERE webhook_no = :webhook_no AND valid_until IS NULL
""")

_DROP_SECRETS = text("DELETE FROM webhook_secrets WHERE webhook_no = :webhook_no")

_DROP = text("DELETE FROM webhooks WHERE webhook_no = :webhook_no")

_GET = sql("SELECT webhook_no, $shown FROM webhooks WHERE webhook_id = :webhook_id", shown=_SHOWN)

_PAGE: Final = {
    is_limited: sql(
        """
        SELECT webhook_no, $shown FROM webhooks WHERE webhook_id > :after $limited ORDER BY webhook_id LIMIT :most
        """,
        shown=_SHOWN,
        limited="AND owner = :owner" if is_limited else "",
    )
    for is_limited in (False, True)
}


def mint_secret() -> str:
    return SIGNING_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def put_webhooks(conn: Connection, items: Sequence[PutWebhook]) -> list[PutResult]:
    """Create webhooks, or replace all of them but owner and secrets. Safe to repeat with the same secret.

    One that is created, or enabled again, is told of the ends that come after this. WebhookExists for one of another
    owner, unless an admin replaces it; TooManyWebhooks for a hundred and first of an owner.
    """
    return _by_id(conn, items, _put)


def _put(conn: Connection, item: PutWebhook) -> PutResult:
    owner = item.caller.subject
    values = {
        "webhook_id": item.webhook_id,
        "owner": owner,
        "url": item.url,
        "events": list(item.events),
        "agent_name": item.agent_name,
        "labels": None if item.labels is None else orjson.dumps(dict(item.labels)).decode(),
        "description": item.description,
        "disabled": item.disabled,
        "by": item.caller.by,
    }
    row = conn.execute(_LOCK, {"webhook_id": item.webhook_id}).first()
    if row is None:
        if conn.execute(_COUNT, {"owner": owner}).scalar_one() >= MOST_WEBHOOKS:
            return TooManyWebhooks(MOST_WEBHOOKS)
        made = conn.execute(_ADD, values).first()
        if made is not None:
            conn.execute(_ADD_SECRET, {"webhook_no": made.webhook_no, "secret": item.secret})
            record_acts(conn, audited_act(item.caller, Act.WEBHOOK_CREATED, item.webhook_id, owner))
            return ShownSecret(_webhook(made), item.secret)
        # Another transaction has just created it.
        row = conn.execute(_LOCK, {"webhook_id": item.webhook_id}).first()
    if row is None or not may_use(item.caller, row.owner):
        return WebhookExists(item.webhook_id)
    own = {"webhook_no": row.webhook_no, "secret": item.secret}
    if conn.execute(_HAS_SECRET, own).first() is not None:
        return ShownSecret(_webhook(row), item.secret)
    replaced = conn.execute(_REPLACE, values | {"webhook_no": row.webhook_no}).one()
    record_acts(conn, audited_act(item.caller, Act.WEBHOOK_CHANGED, item.webhook_id, row.owner))
    return ShownSecret(_as_webhook(replaced), None)


def rotate_secrets(conn: Connection, items: Sequence[RotateSecret]) -> list[RotateResult]:
    """Give webhooks new secrets; the former ones sign beside them for a day. Safe to repeat with the same secret.

    TooManySecrets while five sign.
    """
    return _by_id(conn, items, _rotate)


def _rotate(conn: Connection, item: RotateSecret) -> RotateResult:
    row = _locked(conn, item.caller, item.webhook_id)
    if row is None:
        return NotFound("webhook", item.webhook_id)
    own = {"webhook_no": row.webhook_no}
    if conn.execute(_HAS_SECRET, own | {"secret": item.secret}).first() is None:
        conn.execute(_DROP_EXPIRED, own)
        if conn.execute(_COUNT_SECRETS, own).scalar_one() >= MOST_SECRETS:
            return TooManySecrets(MOST_SECRETS)
        conn.execute(_RETIRE_SECRET, own | {"seconds": FORMER_SECONDS})
        conn.execute(_ADD_SECRET, own | {"secret": item.secret})
        record_acts(conn, audited_act(item.caller, Act.WEBHOOK_ROTATED, item.webhook_id, row.owner))
    return ShownSecret(_webhook(row), item.secret)


def delete_webhooks(conn: Connection, items: Sequence[DeleteWebhook]) -> list[WebhookResult]:
    """Delete webhooks with their secrets; return them as they were. Nothing more is sent, and retention drops the rest.

    A message that is being sent goes on.
    """
    return _by_id(conn, items, _delete)


def _delete(conn: Connection, item: DeleteWebhook) -> WebhookResult:
    row = _locked(conn, item.caller, item.webhook_id)
    if row is None:
        return NotFound("webhook", item.webhook_id)
    conn.execute(_DROP_SECRETS, {"webhook_no": row.webhook_no})
    conn.execute(_DROP, {"webhook_no": row.webhook_no})
    record_acts(conn, audited_act(item.caller, Act.WEBHOOK_DELETED, item.webhook_id, row.owner))
    return _webhook(row)


def get_webhook(conn: Connection, caller: Caller, webhook_id: str) -> WebhookResult:
    """Return a webhook; NotFound for another owner's, unless an admin asks."""
    row = find_webhook(conn, caller, webhook_id)
    return NotFound("webhook", webhook_id) if row is None else _webhook(row)


def find_webhook(conn: Connection, caller: Caller, webhook_id: str) -> Row[Any] | None:
    """Return number and columns of a webhook that the caller may use."""
    row = conn.execute(_GET, {"webhook_id": webhook_id}).first()
    return row if row is not None and may_use(caller, row.owner) else None


def list_webhooks(conn: Connection, caller: Caller, *, limit: int, after: str = "") -> WebhookPage:
    """Return a page of webhooks by their ids: the caller's own, for an admin all of them."""
    is_limited = caller.role is not Role.ADMIN
    values: dict[str, Any] = {"after": after, "most": limit + 1} | ({"owner": caller.subject} if is_limited else {})
    rows = conn.execute(_PAGE[is_limited], values).all()
    shown = [_webhook(row) for row in rows[:limit]]
    return WebhookPage(shown, shown[-1].webhook_id if len(rows) > limit else None)


def may_use(caller: Caller, owner: str | None) -> bool:
    return caller.role is Role.ADMIN or (owner is not None and caller.subject == owner)


def _by_id(conn: Connection, items: Sequence[Item], verb: Callable[[Connection, Item], Result]) -> list[Result]:
    """Do the items in the order of their ids, so that two transactions lock in one order; return results by ordinal."""
    order = sorted(range(len(items)), key=lambda ordinal: items[ordinal].webhook_id)
    results = {ordinal: verb(conn, items[ordinal]) for ordinal in order}
    return [results[ordinal] for ordinal in range(len(items))]


def _locked(conn: Connection, caller: Caller, webhook_id: str) -> Row[Any] | None:
    row = conn.execute(_LOCK, {"webhook_id": webhook_id}).first()
    return row if row is not None and may_use(caller, row.owner) else None


def _webhook(row: Sequence[Any]) -> Webhook:
    """Return the webhook of a row that begins with its number."""
    return Webhook(*row[1:])


def _as_webhook(row: Sequence[Any]) -> Webhook:
    return Webhook(*row)
