"""Calls to a coordinator with several addresses, over real sockets that misbehave on purpose."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from coordinator_client.client import CoordinatorClient
from coordinator_client.errors import Refused, Unreachable
from coordinator_client.requests import RunRequest
from coordinator_client.transport import Transport
from testkit.answering_proxy import ANSWERS
from testkit.ports import own_port


class Address:
    """HTTP server that answers each request with `answer`: (status, body), or None to break the connection."""

    def __init__(self, answer: Callable[[int], tuple[int, str] | None], head: str) -> None:
        self.answer = answer
        self.head = head
        self.requests: list[str] = []
        self.bodies: list[str] = []
        self.url = ""
        self.connections: list[asyncio.StreamWriter] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                text = head.decode()
                length = next(
                    (int(line[15:]) for line in text.lower().split("\r\n") if line.startswith("content-length:")), 0
                )
                self.requests.append(text)
                self.bodies.append((await reader.readexactly(length)).decode())
                answer = self.answer(len(self.requests))
                if answer is None:
                    break
                status, body = answer
                extra = self.head + ("Retry-After: 0\r\n" if status == 503 else "")
                writer.write(f"HTTP/1.1 {status} X\r\n{extra}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(answer: Callable[[int], tuple[int, str] | None], head: str = "") -> AsyncIterator[Address]:
    address = Address(answer, head)
    server = await asyncio.start_server(address.handle, "127.0.0.1", 0)
    address.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield address
    finally:
        server.close()
        for connection in address.connections:
            connection.close()
        await asyncio.gather(*(connection.wait_closed() for connection in address.connections), return_exceptions=True)


def closed_address() -> str:
    return f"http://127.0.0.1:{own_port()}"


def always(status: int, body: str) -> Callable[[int], tuple[int, str]]:
    return lambda _: (status, body)


async def test_call_moves_to_next_address_after_failure_and_stays() -> None:
    """Fail by a refused or broken connection, another server or a 5xx."""
    async with (
        listening(lambda _: None) as broken,
        listening(always(200, "<html>")) as foreign,
        listening(always(503, '{"detail": "draining"}')) as draining,
        listening(always(200, '{"ok": true}')) as good,
    ):
        transport = Transport([closed_address(), broken.url, foreign.url, draining.url, good.url])
        assert await transport.call("GET", "/x") == {"ok": True}
        assert transport.url == good.url
        assert await transport.call("GET", "/y") == {"ok": True}
        assert [len(address.requests) for address in (foreign, draining, good)] == [1, 1, 2]
        await transport.close()


async def test_error_answer_is_not_retried_elsewhere() -> None:
    """Return 4xx: the other replica would answer the same."""
    async with (
        listening(always(409, '{"detail": {"error": "stale_claim", "message": "not yours"}}')) as first,
        listening(always(200, "{}")) as second,
    ):
        transport = Transport([first.url, second.url])
        with pytest.raises(Refused) as caught:
            await transport.call("POST", "/x", body={})
        assert (caught.value.status, caught.value.detail["error"]) == (409, "stale_claim")
        assert str(caught.value) == f"409: not yours (request {caught.value.request_id})"
        assert second.requests == []
        await transport.close()


@pytest.mark.parametrize("name", ANSWERS)
async def test_answer_of_another_server_is_unreachable(name: str) -> None:
    """Leave out our header in an error, page, login or odd JSON: Unreachable quotes it."""
    status, _, body = ANSWERS[name]
    async with listening(always(status, body)) as address, CoordinatorClient(address.url, patience_seconds=0) as client:
        with pytest.raises(Unreachable, match=f"HTTP {status}"):
            await client.run("run_1")
        with pytest.raises(Unreachable, match=f"HTTP {status}"):
            await client.report("lnch_1", [])
        assert client.answers == 0


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, '{"detail": "Run not found"}'),
        (409, '{"detail": {"error": "stale_claim", "message": "m"}}'),
        (422, '{"detail": [{"type": "t", "loc": ["body"], "msg": "m"}]}'),
        (401, '{"detail": "Runner not registered"}'),
    ],
)
async def test_error_of_previous_release_is_a_coordinators(status: int, body: str) -> None:
    """Accept JSON with `detail` without the header."""
    async with listening(always(status, body)) as address, CoordinatorClient(address.url, patience_seconds=0) as client:
        with pytest.raises(Refused) as caught:
            await client.run("run_1")
        assert caught.value.status == status


async def test_error_with_our_header_is_a_coordinators_whatever_its_body() -> None:
    """Try a text, and the framework's own Not Found."""
    for body in ("plain", '{"detail": "Not Found"}'):
        async with (
            listening(always(404, body), head="Coordinator-Instance: web_1\r\n") as address,
            CoordinatorClient(address.url, patience_seconds=0) as client,
        ):
            with pytest.raises(Refused, match="404"):
                await client.run("run_1")


async def test_empty_answer_without_header_is_accepted_for_polls_only() -> None:
    """Trust no 204 without the header as the answer to a report."""
    async with listening(always(204, "")) as address, CoordinatorClient(address.url, patience_seconds=0) as client:
        assert await client.poll("lnch_1", max_runs=1, seconds=0) == {}
        with pytest.raises(Unreachable):
            await client.report("lnch_1", [])


async def test_quoted_answers_are_one_line_of_plain_text() -> None:
    """Keep markup and terminal codes out of logs and terminals."""
    page = "<html><style>p {}</style><h1>Not\r\nhere</h1>\x1b[31mred\x07</html>"
    async with listening(always(404, page)) as address, CoordinatorClient(address.url, patience_seconds=0) as client:
        with pytest.raises(Unreachable) as caught:
            await client.run("run_1")
    words = "HTTP 404, not a coordinator's answer: Not here [31mred"
    assert str(caught.value).endswith(f"{words} (request {caught.value.request_id})")


async def test_broken_connection_is_retried_once_at_same_address() -> None:
    """Allow for a server that closes a kept-alive connection just as it is used."""
    async with listening(lambda number: None if number == 2 else (200, "{}")) as address:
        transport = Transport([address.url])
        await transport.call("GET", "/first")
        await transport.call("GET", "/second")
        assert len(address.requests) == 3
        await transport.close()


async def test_error_without_address_left_names_each_failure() -> None:
    closed = closed_address()
    async with listening(always(200, "hello")) as foreign:
        transport = Transport([closed, foreign.url])
        with pytest.raises(Unreachable) as caught:
            await transport.call("GET", "/x")
        assert set(caught.value.causes) == {closed, foreign.url}
        await transport.close()


async def test_silent_address_is_left_in_time() -> None:
    """Spend its time limit on a frozen replica, not the whole call."""
    gone = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with listening(always(200, "{}")) as good:
        transport = Transport([f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}", good.url])
        assert await transport.call("GET", "/x", seconds=0.2) == {}
        await transport.close()
    await gone.wait()
    silent.close()


@pytest.mark.parametrize("url", ["", "localhost:8765", "ftp://host", "http://"])
def test_invalid_address_is_reported_at_once(url: str) -> None:
    """Raise before the first call."""
    with pytest.raises(ValueError, match="address"):
        Transport([url])


async def test_submission_is_repeated_with_same_key_for_limited_time() -> None:
    """Submit once, however often it arrives."""

    def answer(number: int) -> tuple[int, str] | None:
        return (
            [None, None, (503, '{"detail": "later"}'), (429, '{"detail": "slowly"}')][number - 1]
            if number < 5
            else (
                201,
                '{"run_id": "run_1", "session_id": "ses_1", "status": "pending"}',
            )
        )

    async with listening(answer) as address, CoordinatorClient(address.url) as client:
        submitted = await client.submit(RunRequest(parameters={"prompt": "\ud800"}))
    assert submitted["run_id"] == "run_1"
    keys = {line for text in address.requests for line in text.split("\r\n") if line.lower().startswith("idempotency")}
    assert len(address.requests) == 5
    assert len(keys) == 1
    assert {json.loads(body)["parameters"]["prompt"] for body in address.bodies} == {"\ud800"}


async def test_retries_end_with_last_failure() -> None:
    async with listening(always(503, '{"detail": "no"}')) as address:
        async with CoordinatorClient(address.url, patience_seconds=0.5) as client:
            with pytest.raises(Refused, match="503: no"):
                await client.runners()
        assert len(address.requests) > 1
    async with CoordinatorClient(closed_address(), patience_seconds=0) as client:
        with pytest.raises(Unreachable):
            await client.runners()


async def test_token_is_sent_as_bearer() -> None:
    async with listening(always(200, '{"runners": []}')) as address:
        async with CoordinatorClient(address.url, token="secret") as client:
            assert await client.runners() == []
        assert "authorization: bearer secret" in address.requests[0].lower()


async def test_every_try_of_call_has_one_request_id_which_errors_name() -> None:
    """Another call has another id; a coordinator's own id, which its log names, is preferred."""
    own = "X-Request-Id: of-coordinator\r\nCoordinator-Instance: web_1\r\n"
    async with (
        listening(always(503, '{"detail": "draining"}')) as first,
        listening(always(404, '{"detail": "Run not found"}')) as second,
        listening(always(409, '{"detail": "no"}'), own) as third,
    ):
        transport = Transport([first.url, second.url])
        errors = []
        for _ in range(2):
            with pytest.raises(Refused) as caught:
                await transport.call("GET", "/x")
            errors.append(caught.value)
            transport._current = 0
        sent = [
            [line[14:] for line in request.split("\r\n") if line.lower().startswith("x-request-id: ")]
            for request in (*first.requests, *second.requests)
        ]
        assert (
            [error.request_id for error in errors] == [each for (each,) in sent[:2]] == [each for (each,) in sent[2:]]
        )
        assert str(errors[0]) == f"404: Run not found (request {errors[0].request_id})"
        assert errors[0].request_id != errors[1].request_id
        await transport.close()
        transport = Transport([third.url])
        with pytest.raises(Refused, match=r"^409: no \(request of-coordinator\)$"):
            await transport.call("GET", "/x")
        await transport.close()


async def test_unreachable_names_request_only_if_it_may_have_arrived() -> None:
    async with listening(always(502, "<html>proxy</html>")) as proxy:
        transport = Transport([closed_address(), proxy.url])
        with pytest.raises(Unreachable) as caught:
            await transport.call("GET", "/x")
        assert caught.value.request_id is not None
        assert str(caught.value).endswith(f"(request {caught.value.request_id})")
        await transport.close()
    transport = Transport([closed_address()])
    with pytest.raises(Unreachable) as caught:
        await transport.call("GET", "/x")
    assert caught.value.request_id is None
    assert "request" not in str(caught.value)
    await transport.close()


async def test_submissions_and_reports_carry_trace_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the environment's unless the caller names one; send nothing malformed, and none with other calls."""
    given, inherited = (f"00-{digit * 32}-{digit * 16}-01" for digit in "ab")
    monkeypatch.setenv("TRACEPARENT", inherited)

    async def sent(traceparent: str | None) -> list[list[str]]:
        async with (
            listening(always(200, '{"run_id": "r", "results": []}')) as address,
            CoordinatorClient(address.url, traceparent=traceparent, patience_seconds=0) as client,
        ):
            request = RunRequest(parameters={"prompt": "x"})
            await client.submit(request)
            await client.submit_batch([request])
            await client.report("lnch_1", [], traceparent=given)
            await client.run("r")
            return [
                [line[13:] for line in head.split("\r\n") if line.startswith("traceparent: ")]
                for head in address.requests
            ]

    assert await sent(given) == [[given], [given], [given], []]
    assert await sent(None) == [[inherited], [inherited], [given], []]
    assert await sent("malformed") == [[], [], [given], []]
    monkeypatch.setenv("TRACEPARENT", "malformed")
    assert await sent(None) == [[], [], [given], []]
