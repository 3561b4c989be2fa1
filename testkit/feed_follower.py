"""Feed client over bare HTTP that behaves like a browser: it keeps its cursor, is cut off anywhere and reconnects."""

import http.client
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlencode, urlsplit

from sqlalchemy import Engine, Row, text

from app.http.serializers import frame_with_run
from models.feed.pages import FeedEvent
from models.schema.sql import sql
from testkit.recorded_events import RECORDED_EVENTS
from testkit.waiting import eventually

READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Message:
    """Message that arrived whole; one without ``event`` only moves the cursor or sets the pause before a reconnect."""

    id: str | None
    event: str
    data: str
    retry: int | None = None

    @property
    def position(self) -> int:
        """Return the position in the feed that its id names."""
        assert self.id is not None
        return int(self.id.rpartition(".")[2])


class Parser:
    """Parser of a stream's bytes into messages; incomplete ones are kept back."""

    def __init__(self) -> None:
        self.rest = bytearray()
        self.comments = 0
        self._searched = 0

    def feed(self, data: bytes) -> Iterator[Message]:
        """Return the messages that are complete now; unread ones are returned by the next call."""
        self.rest += data
        while (end := self.rest.find(b"\n\n", self._searched)) >= 0:
            block = self.rest[:end].decode()
            del self.rest[: end + 2]
            self._searched = 0
            fields: dict[str, str] = {}
            for line in block.split("\n"):
                name, _, value = line.partition(":")
                if name:
                    assert name not in fields, block
                    fields[name] = value.removeprefix(" ")
                else:
                    self.comments += 1
            if fields:
                retry = int(fields["retry"]) if "retry" in fields else None
                yield Message(fields.get("id"), fields.get("event", ""), fields.get("data", ""), retry)
        self._searched = max(0, len(self.rest) - 1)


@dataclass
class Connection:
    """Request of a stream and what has arrived of it so far."""

    url: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 30
    # Set when the client stops reading.
    over: threading.Event = field(default_factory=threading.Event)
    # Bytes that the kernel buffers for a client which does not read.
    receive_buffer: int | None = None
    parser: Parser = field(default_factory=Parser)

    def __post_init__(self) -> None:
        where = urlsplit(self.url)
        self.http = http.client.HTTPConnection(str(where.hostname), where.port, timeout=self.timeout)
        if self.receive_buffer is not None:
            self.http.sock = socket.socket()
            self.http.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
            self.http.sock.settimeout(self.timeout)
            self.http.sock.connect((str(where.hostname), where.port))
        try:
            self.http.request("GET", f"/sse/sessions?{urlencode(dict(self.query))}", headers=dict(self.headers))
            self.response = self.http.getresponse()
        except BaseException:
            self.http.close()
            raise

    def messages(self, most_bytes: int | None = None, within: float = math.inf) -> Iterator[Message]:
        """Yield messages until the server ends the stream, or after so many bytes; all ``within`` so many seconds."""
        left = most_bytes
        end = time.monotonic() + within
        yield from self.parser.feed(b"")
        while (left is None or left > 0) and not self.over.is_set():
            assert time.monotonic() < end, f"no more than signs of life within {within} s"
            data = self.response.read1(READ_BYTES if left is None else min(left, READ_BYTES))
            if not data:
                return
            left = None if left is None else left - len(data)
            yield from self.parser.feed(data)

    def until(self, event: str) -> list[Message]:
        """Return everything up to the first message with this name; fail if the stream ends before."""
        got: list[Message] = []
        for message in self.messages(within=self.timeout):
            got.append(message)
            if message.event == event:
                return got
        raise AssertionError(f"no {event} in {got}")

    def take_until(self, holds: Callable[[Message], bool]) -> list[Message]:
        """Return everything up to the first message that fulfils the condition; fail if the stream ends before."""
        got: list[Message] = []
        for message in self.messages(within=self.timeout):
            got.append(message)
            if holds(message):
                return got
        raise AssertionError(f"the stream ended after {got}")

    def take(self, number: int) -> list[Message]:
        """Return the next so many events, and skip other messages."""
        got: list[Message] = []
        for message in self.messages(within=self.timeout):
            if message.event:
                got.append(message)
            if len(got) == number:
                return got
        raise AssertionError(f"the stream ended after {got}")

    def close(self) -> None:
        # The connection forgets an answer with `Connection: close`, which then holds the socket alone.
        self.response.close()
        self.http.close()


@contextmanager
def open_stream(url: str, query: Mapping[str, Any] | None = None, **headers: str) -> Iterator[Connection]:
    """Open one stream for the length of a block; write ``_`` for ``-`` in ``headers``."""
    connection = Connection(url, query or {}, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        yield connection
    finally:
        connection.close()


class Follower:
    """Thread that follows the feed through all faults: on each reconnect it takes the next address.

    ``urls`` may change meanwhile; ``turn`` is the index of the first. With ``cuts`` it disconnects by itself after
    random numbers of bytes. ``events`` is what an application would have seen; ``resets`` must stay empty where nothing
    may be lost.
    """

    def __init__(
        self,
        urls: Sequence[str],
        query: Mapping[str, Any] | None = None,
        *,
        cursor: str | None = None,
        cuts: Random | None = None,
        longest: int = 20_000,
        turn: int = 0,
    ) -> None:
        self.events: list[Message] = []
        self.inits: list[Message] = []
        self.resets: list[Message] = []
        self.cursor = cursor
        self.connections = 0
        self._urls = urls
        self._turn = turn
        self._fault: BaseException | None = None
        self._query = dict(query or {})
        self._cuts = cuts
        self._longest = longest
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and keep what has arrived."""
        self._ended.set()
        self._thread.join(40)
        assert not self._thread.is_alive()
        if self._fault is not None:
            raise self._fault

    def until_at(self, position: int, within: float = 30) -> None:
        """Wait until its cursor has reached this position."""
        eventually(lambda: self._fault or self.position >= position, within, what=f"a client at {position}")

    @property
    def position(self) -> int:
        return int(self.cursor.rpartition(".")[2]) if self.cursor and "~" not in self.cursor else -1

    def _follow(self) -> None:
        while not self._ended.is_set():
            headers = {"Last-Event-ID": self.cursor} if self.cursor else {}
            url = self._urls[(self._turn + self.connections) % len(self._urls)]
            self.connections += 1
            try:
                self._listen(Connection(url, self._query, headers, timeout=1, over=self._ended))
            except (OSError, http.client.HTTPException):
                pass
            except BaseException as fault:  # noqa: BLE001 raised again in the test's own thread
                self._fault = fault
                return
            # After an immediate refusal, try the next address after a moment.
            self._ended.wait(0.01)

    def _listen(self, connection: Connection) -> None:
        most = self._cuts.randrange(1, self._longest) if self._cuts else None
        try:
            assert connection.response.status == 200
            for message in connection.messages(most):
                self._take(message)
                if self._ended.is_set():
                    return
        finally:
            connection.close()

    def _take(self, message: Message) -> None:
        match message.event:
            case "init":
                self.inits.append(message)
            case "reset":
                self.resets.append(message)
            case "":
                pass
            case _:
                self.events.append(message)
        if message.id is not None:
            self.cursor = message.id


def ledger(
    engine: Engine, after: int = 0, where: str = "kind <> 'run_updated'", *, table: str = "events"
) -> list[tuple[int, str, str]]:
    """Return the history in Postgres: position, name and data as a client without filters gets them."""
    statement = (
        f"SELECT feed_pos, kind, run_id, CAST(frame AS text) AS frame FROM {table} "
        f"WHERE feed_pos > :after AND {where} ORDER BY feed_pos"
    )
    with engine.connect() as connection:
        rows = connection.execute(text(statement), {"after": after}).all()
    return [(row.feed_pos, row.kind, sent_data(row)) for row in rows]


def sent_data(row: "Row[Any] | FeedEvent") -> str:
    """Return the data that clients get for a stored event with ``kind``, ``run_id`` and the text of its ``frame``."""
    return frame_with_run(row.frame, row.run_id) if row.kind == "event" else str(row.frame)


def seen_events(messages: Sequence[Message]) -> list[tuple[int, str, str]]:
    """Return position, name and data of the events among these messages."""
    return [(message.position, message.event, message.data) for message in messages]


def head(engine: Engine) -> int:
    """Return the newest position."""
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT last_pos FROM feed_head")).scalar_one())


_UNNUMBERED = sql("SELECT count(*) FROM $recorded WHERE feed_pos IS NULL", recorded=RECORDED_EVENTS)


def all_numbered(engine: Engine) -> bool:
    """Return whether every committed event has its position."""
    with engine.connect() as connection:
        return not connection.execute(_UNNUMBERED).scalar_one()
