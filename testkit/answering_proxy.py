"""Proxy before a web process, in its own process, that answers in its place when a test says so.

`python -m testkit.answering_proxy PORT TARGET STATE`: STATE is a file with `{"answer": NAME of ANSWERS or "",
"most": bytes of a body that it takes, "cut": whether it cuts what is larger instead of answering 413}`, read at each
request. Each request becomes a line of JSON on stdout: method, path, bytes of its body, and the status it answered
itself or 0.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runtime.processes import write_pid_file
from testkit.cluster import answers
from testkit.ports import own_port
from testkit.waiting import eventually

PAGE = "<!DOCTYPE html><html><head><title>{0}</title><style>p {{}}</style></head><body><h1>{0}</h1></body></html>"
# Status, content type and body as ingress controllers, balancers, single sign-on and captive portals send them.
ANSWERS: dict[str, tuple[int, str, str]] = {
    "default-backend": (404, "text/plain; charset=utf-8", "default backend - 404"),
    "json-404": (404, "application/json", '{"message": "no Route matched with those values"}'),
    "framework-404": (404, "application/json", '{"detail": "Not Found"}'),
    "bad-gateway": (502, "text/html", PAGE.format("502 Bad Gateway")),
    "unavailable": (503, "text/html", PAGE.format("503 Service Temporarily Unavailable")),
    "login": (401, "text/html", PAGE.format("Sign in")),
    "forbidden": (403, "text/html", PAGE.format("403 Forbidden")),
    "conflict": (409, "text/plain", "conflict"),
    "gone": (410, "text/html", PAGE.format("410 Gone")),
    "page": (200, "text/html", PAGE.format("Welcome")),
    "json-200": (200, "application/json", '{"status": "ok"}'),
    "nothing": (204, "text/plain", ""),
    "redirect": (302, "text/html", PAGE.format("Moved")),
}


@dataclass
class AnsweringProxy:
    """Handle of the proxy process in a test."""

    url: str
    popen: "subprocess.Popen[bytes]"
    directory: Path

    def answer(self, name: str = "", *, most: int | None = None, cut: bool = False) -> None:
        """Answer like this from now on; with an empty name, pass everything of at most `most` bytes."""
        state = self.directory / "state"
        fresh = state.with_suffix(".new")
        fresh.write_text(json.dumps({"answer": name, "most": most, "cut": cut}))
        fresh.replace(state)

    def requests(self) -> list[dict[str, Any]]:
        """Return every request so far."""
        lines = (self.directory / "requests").read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def answered(self, path: str) -> int:
        """Count the requests for paths with this ending that it has answered itself."""
        return sum(1 for one in self.requests() if one["path"].endswith(path) and one["answered"])


@contextmanager
def answering_proxy(target: str, directory: Path) -> Iterator[AnsweringProxy]:
    """Start one before this address, which at first passes everything."""
    directory.mkdir()
    port = own_port()
    with (directory / "requests").open("wb") as out:
        command = [sys.executable, "-m", "testkit.answering_proxy", str(port), target, str(directory / "state")]
        popen = subprocess.Popen(command, stdout=out, cwd=Path(__file__).parents[1])
    write_pid_file(directory / "run" / "proxy.pid", popen.pid)
    proxy = AnsweringProxy(f"http://127.0.0.1:{port}", popen, directory)
    proxy.answer()
    try:
        eventually(lambda: answers(f"{proxy.url}/health"), what="the proxy")
        yield proxy
    finally:
        popen.kill()
        popen.wait()


class _Serving:
    def __init__(self, target: str, state: Path) -> None:
        self._target = urlsplit(target)
        self._state = state

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the requests of a connection one after another."""
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        length = int(headers.get("content-length", "0"))
        state = json.loads(self._state.read_text())
        is_large = state["most"] is not None and length > state["most"]
        status = 413 if is_large else ANSWERS[state["answer"]][0] if state["answer"] else 0
        said = {"method": method, "path": path.partition("?")[0], "bytes": length, "answered": status}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
        if is_large and state["cut"]:
            writer.transport.abort()
            return False
        if is_large or state["answer"]:
            await reader.readexactly(length)
            _, kind, text = (413, "text/html", PAGE.format("413")) if is_large else ANSWERS[state["answer"]]
            await self._say(writer, status, kind, text)
            return True
        await self._pass(head, await reader.readexactly(length), reader, writer)
        return False

    async def _say(self, writer: asyncio.StreamWriter, status: int, kind: str, text: str) -> None:
        length = "" if status == 204 else f"Content-Length: {len(text)}\r\n"
        location = "Location: /login\r\n" if status == 302 else ""
        head = f"HTTP/1.1 {status} X\r\nServer: proxy\r\nContent-Type: {kind}\r\n{location}{length}\r\n"
        writer.write((head + text).encode())
        await writer.drain()

    async def _pass(self, head: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send the request on a connection of its own, and return the answer until the server closes."""
        there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        try:
            back.write(head.encode("latin-1")[:-2] + b"Connection: close\r\n\r\n" + body)
            copying = asyncio.create_task(self._copy(there, writer))
            gone = asyncio.create_task(reader.read(1))
            await asyncio.wait((copying, gone), return_when=asyncio.FIRST_COMPLETED)
            copying.cancel()
            gone.cancel()
        finally:
            back.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()


async def _main(port: int, target: str, state: Path) -> None:
    server = await asyncio.start_server(_Serving(target, state).serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
