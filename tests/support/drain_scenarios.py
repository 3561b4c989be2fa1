"""Scenario of a web process that ends while clients wait: unbroken, and with draining broken."""

from collections.abc import Callable
from contextlib import suppress
from http.client import IncompleteRead

import httpx

from tests.support.feed_follower import Message, open_stream
from tests.support.web import WebInThread

DRAIN_SECONDS = 1.0


def waiting_clients_are_answered(web: WebInThread) -> None:
    """Begin a poll, a stream and a wait for a run before the process is told to end, and call it meanwhile."""
    runner = web.client.register()
    run_id = web.client.submit(additional_demands={"hostname": "nobody"})["run_id"]
    with open_stream(web.client.url) as stream, httpx.Client(base_url=web.client.url, trust_env=False) as kept:
        stream.until("init")
        poll = web.client.meanwhile(web.client.poll, runner, 30)
        wait = web.client.meanwhile(web.client.get, f"/runs/{run_id}", wait=30)
        web.until_parked()
        kept.get("/health")
        web.leave(DRAIN_SECONDS)
        meanwhile = kept.get("/runs")
        assert meanwhile.status_code == 200
        assert meanwhile.headers.get("connection") == "close", "a client is not told to come back elsewhere"
        last: list[Message] = []
        with suppress(IncompleteRead):
            for message in stream.messages():
                last = [message]
        assert _code(poll.result) == 204, "a poll was cut"
        assert _code(wait.result) == 200, "a wait was cut"
        assert last, "a stream was cut"
        assert last[0].retry is not None, "a stream was cut"


def _code(result: Callable[[float], httpx.Response]) -> int:
    """Return the status of the answer; 0 without an answer."""
    try:
        return result(30).status_code
    except httpx.TransportError:
        return 0
