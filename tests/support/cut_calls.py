"""HTTP calls over bare sockets, cut at any byte and at any moment, and what of the answer came before the cut."""

import asyncio
import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


def call_bytes(url: str, method: str, path: str, body: Any = None, **headers: str) -> bytes:
    """A whole request."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def send_part(url: str, request: bytes, *, reset: bool) -> None:
    """Send so much of a request and go: with a FIN, or with a RST as a process that dies does."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port or 80), 10) as connection:
        connection.sendall(request)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


@dataclass
class HeldCall:
    """A call that is held; whoever made it may hang up at any moment."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def hang_up(self) -> bytes:
        """Say that we are going, and what had been sent to us until the other side heard that: all, or nothing."""
        self.writer.write_eof()
        answer = await asyncio.wait_for(self.reader.read(), 30)
        self.writer.close()
        return answer


async def hold(url: str, request: bytes) -> HeldCall:
    """Make a call and do not wait for its answer."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request)
    await writer.drain()
    return HeldCall(reader, writer)


def content_of(answer: bytes) -> Any:
    """The JSON of a complete answer; None of one without content."""
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 20"), answer
    return json.loads(content) if content else None
