"""Receivers of webhooks: real HTTP servers with scripted answers, and what they were sent; webhooks in a database."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from unittest.mock import patch

from standardwebhooks.webhooks import Webhook as Verifier

from models.core.callers import ADMIN, Caller
from models.core.errors import CoordinatorError
from models.webhooks.deliveries import Attempt, Delivery, Outcome, record_attempts, take_deliveries
from models.webhooks.hooks import PutWebhook, ShownSecret, mint_secret, put_webhooks
from models.webhooks.match import match_webhooks
from runtime.settings import Settings
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all
from tests.support.tcp_server import listening_in_thread
from workers import webhook_sending
from workers.context import worker_context

T = TypeVar("T")

LOOPBACK: Final = "127.0.0.1/32"
RUN_ENDS: Final = ("run.completed", "run.failed", "run.stopped")
SESSION_ENDS: Final = ("session.finished", "session.failed", "session.stopped")
ALL: Final = (*RUN_ENDS, *SESSION_ENDS)
# Answers besides statuses: never one, an end of the connection, and a redirect to the path /elsewhere.
HANG, CUT, REDIRECT = "hang", "cut", "redirect"


@dataclass(frozen=True)
class Message:
    """Request that arrived."""

    path: str
    headers: dict[str, str]
    text: str

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    def verify(self, secret: str) -> Any:
        """Return the body if one of the signatures is by this secret; raise otherwise."""
        return Verifier(secret).verify(self.text, self.headers)


# Set by each receiver, to be sent to none.
COOKIE = "Set-Cookie: sid=secret"


@dataclass
class Receiver:
    """Server that notes each message and answers as ``answer`` says; ``open_now``: messages without an answer yet."""

    answer: Callable[[Message], int | str] = lambda _: 204
    messages: list[Message] = field(default_factory=list)
    open_now: int = 0
    most_open: int = 0
    address: str = ""
    _released: asyncio.Event = field(default_factory=asyncio.Event)
    _loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        return f"http://{self.address}/hook"

    def about(self, name: str) -> list[Any]:
        """Return a member of the data of each message, in the order in which they came."""
        return [message.body["data"].get(name) for message in list(self.messages)]

    def release(self) -> None:
        """End the connections of messages that hang."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._released.set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._loop = asyncio.get_running_loop()
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        text = (await reader.readexactly(int(headers["content-length"]))).decode()
        message = Message(first.split()[1], headers, text)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        self.messages.append(message)
        answer = self.answer(message)
        if answer == HANG:
            await self._released.wait()
        if isinstance(answer, int):
            writer.write(f"HTTP/1.1 {answer} X\r\nContent-Length: 2\r\nRetry-After: 1\r\n{COOKIE}\r\n\r\nok".encode())
        if answer == REDIRECT:
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
        self.open_now -= 1
        writer.close()


@contextmanager
def receiving(answer: Callable[[Message], int | str] = lambda _: 204) -> Iterator[Receiver]:
    receiver = Receiver(answer)
    with listening_in_thread(receiver.serve) as address:
        receiver.address = address
        yield receiver


@contextmanager
def sending(settings: Settings, *allow: str) -> Iterator[None]:
    """Send what is due, to receivers on this machine unless others are allowed, as a worker process does."""
    allowed = settings.model_copy(update={"webhook_allow": allow or (LOOPBACK,)})
    with worker_context(allowed, threads=1) as context, patch.object(webhook_sending, "LOOK_SECONDS", 0.05):
        with webhook_sending.sending_webhooks(context) as thread:
            yield
        thread.join(15)


def put(db: DbVerbs, webhook_id: str, url: str, *events: str, caller: Caller = ADMIN, **values: Any) -> str:
    """Create or replace a webhook; return its new secret, "" for one that was there."""
    item = PutWebhook(caller, webhook_id, mint_secret(), url, events or RUN_ENDS, **values)
    (result,) = db.do(put_webhooks, [item])
    assert isinstance(result, ShownSecret), result
    return result.secret or ""


def matched(db: DbVerbs, most: int = 1_000) -> None:
    """Number all events and make their messages."""
    number_all(db)
    while db.do(match_webhooks, most=most):
        pass


def messages(db: DbVerbs, webhook_id: str) -> list[tuple[str, str | None, str]]:
    """Return type, run and session of the messages of a webhook, in their order."""
    rows = db.rows(
        "SELECT d.event_type, d.run_id, d.session_id FROM webhook_deliveries d JOIN webhooks w USING (webhook_no)"
        " WHERE w.webhook_id = :w ORDER BY d.delivery_id",
        w=webhook_id,
    )
    return [tuple(row) for row in rows]


def types(db: DbVerbs, webhook_id: str) -> list[str]:
    return [event_type for event_type, _, _ in messages(db, webhook_id)]


def taken(db: DbVerbs, most: int = 100) -> list[Delivery]:
    return db.do(take_deliveries, most=most)


def recorded(db: DbVerbs, delivery: Delivery, status: int | None = 200, **values: Any) -> Outcome:
    (outcome,) = db.do(record_attempts, [Attempt(delivery, status, **values)])
    return outcome


def states(db: DbVerbs) -> list[str]:
    return [row.state for row in db.rows("SELECT state FROM webhook_deliveries ORDER BY delivery_id")]


def make_due(db: DbVerbs) -> None:
    """Let the pauses and leases of all messages be over."""
    db.rows("UPDATE webhook_deliveries SET next_at = now() WHERE state = 'pending'")


def runs_of(deliveries: Sequence[Delivery]) -> list[str | None]:
    return [json.loads(delivery.payload)["data"].get("run_id") for delivery in deliveries]


def good(result: T | CoordinatorError) -> T:
    assert not isinstance(result, CoordinatorError), result
    return result
