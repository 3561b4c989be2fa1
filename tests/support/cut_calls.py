"""Make HTTP calls over bare sockets, cut at any byte or moment, and read the answer up to the cut."""

import asyncio
import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


def call_bytes(url: str, method: str, path: str, body: Any = None, **headers: str) -> bytes:
    """Return the bytes of a whole request."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def send_part(url: str, request: bytes, *, reset: bool) -> None:
    """Send a part of a request and disconnect: with a FIN, or with a RST as a dying process does."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port or 80), 30) as connection:
        connection.sendall(request)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


@dataclass
class HeldCall:
    """Call that is waiting for its answer and may be disconnected at any moment."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def hang_up(self) -> bytes:
        """Disconnect, and return what arrived until the other side noticed: all, or nothing."""
        self.writer.write_eof()
        answer = await asyncio.wait_for(self.reader.read(), 30)
        self.writer.close()
        return answer


async def hold(url: str, request: bytes) -> HeldCall:
    """Make a call without waiting for its answer."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request)
    await writer.drain()
    return HeldCall(reader, writer)


def content_of(answer: bytes) -> Any:
    """Return the JSON of a complete answer; None of one without content."""
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 20"), answer
    return json.loads(content) if content else None
