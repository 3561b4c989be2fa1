import asyncio
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import orjson

Answer = tuple[int, bytes]


class Unexpected(Exception):
    pass


class Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._body: list[bytes] = []

    async def call(self, request: bytes) -> Answer:
        if self._transport is None:
            raise Unexpected("the connection is closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    async def expect(self, status: int, request: bytes) -> bytes:
        got, body = await self.call(request)
        if got != status:
            raise Unexpected(f"{got}, not {status}, to {request[:80]!r}: {body[:300]!r}")
        return body

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unexpected(f"the connection was lost: {exc}"))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        answer, body = self._answer, b"".join(self._body)
        self._body.clear()
        if answer is not None and not answer.done():
            answer.set_result((self._parser.get_status_code(), body))
        self._parser = httptools.HttpResponseParser(self)


class Stream(Connection):
    def __init__(self, on_frame: Callable[[bytes], None]) -> None:
        super().__init__()
        self._on_frame = on_frame
        self._rest = b""
        self.began = asyncio.get_running_loop().create_future()

    def follow(self, path: str) -> None:
        if self._transport is None:
            raise Unexpected("the connection is closed")
        self._transport.write(request("GET", path))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != 200 and not self.began.done():
            self.began.set_exception(Unexpected(f"{status} to a stream"))

    def on_body(self, body: bytes) -> None:
        if not self.began.done():
            self.began.set_result(None)
        *frames, self._rest = (self._rest + body).replace(b"\r\n", b"\n").split(b"\n\n")
        for frame in frames:
            self._on_frame(frame)


async def connect(url: str) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, *address(url))
    return connection


async def connect_stream(url: str, on_frame: Callable[[bytes], None]) -> Stream:
    _, stream = await asyncio.get_running_loop().create_connection(lambda: Stream(on_frame), *address(url))
    return stream


def request(method: str, path: str, body: Any = None, *, token: str = "") -> bytes:
    content = b"" if body is None else orjson.dumps(body)
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return head.encode() + b"\r\n" + content


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80
