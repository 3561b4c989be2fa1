"""Foreign Host and Origin headers do not come in while authentication is off."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from app.middleware import Door


async def inside(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def status_of(
    host: str, origin: str = "", path: str = "/runs", hosts: tuple[str, ...] = (), origins: tuple[str, ...] = ()
) -> int:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request"}

    headers = [(b"host", host.encode())] + ([(b"origin", origin.encode())] if origin else [])
    scope = {"type": "http", "path": path, "headers": headers, "method": "GET"}
    asyncio.run(Door(inside, hosts, origins)(scope, receive, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8765", "127.0.0.1:8765", "127.3.2.1", "[::1]:8765", "LOCALHOST"]
)
def test_loopback_hosts_come_in(host: str) -> None:
    """Whatever port they name."""
    assert status_of(host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1", "", "[::1", "127.0.0.1.evil.example"]
)
def test_foreign_hosts_do_not(host: str) -> None:
    """A web page that has its name resolve to 127.0.0.1 must not start jobs."""
    assert status_of(host) == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost.evil.example", "file://"])
def test_foreign_origins_do_not(origin: str) -> None:
    """Nor a page that posts to localhost across origins."""
    assert status_of("localhost", origin) == 403


def test_loopback_origins_come_in() -> None:
    """A dashboard in development is served from another port."""
    assert status_of("localhost:8765", "http://localhost:3000") == 200


def test_health_is_exempt() -> None:
    """A load balancer asks by address, under whatever name."""
    assert status_of("10.0.0.1", path="/health/ready") == 200


def test_settings_add_names() -> None:
    """COORDINATOR_ALLOWED_HOSTS and COORDINATOR_CORS_ORIGINS."""
    assert status_of("lb", hosts=("lb",)) == 200
    assert status_of("lb", "http://lb", hosts=("lb",)) == 200
    assert status_of("localhost", "https://dash.example", origins=("https://dash.example",)) == 200
    assert status_of("localhost", "https://other.example", origins=("https://dash.example",)) == 403
