"""Limits of one caller: refusals, delays, ended streams and polls, and no harm to others."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import ClassVar

import anyio
import httpx
import pytest
from limits import RateLimitItemPerMinute

from models.auth.keys import mint_token
from models.core.callers import Role
from runtime.quotas import Quota, Quotas, Refusal
from runtime.settings import Settings
from testkit.servers import OwnRedis
from testkit.waiting import eventually
from tests.support.callers import client_with, make_key
from tests.support.db_verbs import DbVerbs
from tests.support.web import PROMPT, WebClient, WebInThread, served

START = {"type": "start_session", "parameters": PROMPT}
FEW = {"auth": True, "submissions_per_minute": 3, "events_per_minute": 3, "streams_per_caller": 2}


@contextmanager
def limited(settings: Settings, **more: object) -> Iterator[WebInThread]:
    with served(settings.model_copy(update=FEW | more)) as web:
        yield web


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with limited(settings) as web:
        yield web


def event(session_id: str) -> dict[str, str]:
    return {"event_type": "message", "session_id": session_id, "timestamp": "t"}


def test_submissions_beyond_limit_are_429_with_retry_after(web: WebInThread, db: DbVerbs) -> None:
    """Send the RateLimit headers, create nothing, and accept submissions of another caller."""
    ann, bob = make_key(db, Role.USER, "ann"), make_key(db, Role.USER, "bob")
    with client_with(web.client.url, ann) as client:
        assert [client.post("/runs", START).status_code for _ in range(5)] == [201, 201, 201, 429, 429]
        refused = client.post("/runs", START)
        assert refused.json() == {"detail": "Too many submissions: 3 a minute are allowed"}
        assert refused.headers["ratelimit-limit"] == "3"
        assert refused.headers["ratelimit-remaining"] == "0"
        assert refused.headers["retry-after"] == refused.headers["ratelimit-reset"]
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert len(client.get("/runs").json()["runs"]) == 3
    with client_with(web.client.url, bob) as client:
        assert client.post("/runs", START).status_code == 201


def test_reads_and_refusals_of_owner_are_throttled_together(web: WebInThread, db: DbVerbs) -> None:
    """Answer them more slowly when they are many; other owners are unaffected."""
    limits = web.app.state.web.caller_limits
    roles = {role: make_key(db, role, "ann") for role in (Role.USER, Role.ADMIN, Role.RUNNER)}
    for token in roles.values():
        with client_with(web.client.url, token) as client:
            assert client.get("/runs").status_code == 200
    assert list(limits._reads._moments) == ["user:ann"]
    with client_with(web.client.url, roles[Role.USER]) as client:
        assert [client.post("/runs", START).status_code for _ in range(4)][-1] == 429
    with client_with(web.client.url, mint_token()[0]) as client:
        assert client.get("/runs").status_code == 403
    assert list(limits._refusals._moments) == ["submissions user:ann", ""]


def test_heavy_reader_is_delayed_but_answered(settings: Settings, db: DbVerbs) -> None:
    ann = make_key(db, Role.USER, "ann")
    with limited(settings, reads_per_second=20) as web, client_with(web.client.url, ann) as client:
        assert {client.get("/runs").status_code for _ in range(40)} == {200}


def test_all_keys_of_owner_on_all_instances_share_one_limit(settings: Settings, db: DbVerbs) -> None:
    """Count in Redis."""
    keys = [make_key(db, Role.USER, "ann") for _ in range(2)]
    with limited(settings) as first, limited(settings) as second, ExitStack() as clients:
        callers = [
            clients.enter_context(client_with(web.client.url, key))
            for web, key in zip((first, second, first, second), keys * 2, strict=True)
        ]
        assert [caller.post("/runs", START).status_code for caller in callers] == [201, 201, 201, 429]


def test_batch_counts_its_runs_and_oversized_batch_passes_alone(web: WebInThread, db: DbVerbs) -> None:
    """Accept a batch larger than a minute's limit if it comes first: it would otherwise never pass."""
    with client_with(web.client.url, make_key(db, Role.USER, "ann")) as client:
        assert client.post("/runs/batch", {"runs": [START] * 5}).status_code == 200
        assert client.post("/runs/batch", {"runs": [START]}).status_code == 429
        assert client.post("/runs", START).status_code == 429
    with client_with(web.client.url, make_key(db, Role.USER, "bob")) as client:
        assert client.post("/runs/batch", {"runs": [START] * 2}).status_code == 200
        assert client.post("/runs/batch", {"runs": [START] * 2}).status_code == 429
        assert client.post("/runs", START).status_code == 201


def test_events_are_counted_by_session_and_runner_events_are_delayed(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never refuse a runner's event, since a deployed runner sends each once."""
    monkeypatch.setattr("app.auth.caller_limits.LONGEST_DELAY", 0.1)
    with limited(settings) as web, client_with(web.client.url, make_key(db, Role.ADMIN)) as admin:
        session_id, other_id = (admin.submit()["session_id"] for _ in range(2))
        path = f"/sessions/{session_id}/events"
        assert [admin.post(path, event(session_id)).status_code for _ in range(4)] == [201, 201, 201, 429]
        assert admin.post(path, [event(session_id)]).status_code == 429
        assert admin.post(f"/sessions/{other_id}/events", event(other_id)).status_code == 201
        with client_with(web.client.url, make_key(db, Role.RUNNER, "machine")) as machine:
            runner_id = machine.register()
            session = machine.claim(runner_id)["session_id"]
            sent = [machine.post(f"/sessions/{session}/events", event(session)) for _ in range(5)]
            assert {answer.status_code for answer in sent} == {201}


def test_oldest_stream_beyond_limit_ends_with_retry(web: WebInThread, db: DbVerbs) -> None:
    """End it cleanly, so that its client may reconnect; streams of another caller go on."""
    ann, bob = make_key(db, Role.USER, "ann"), make_key(db, Role.USER, "bob")
    with (
        client_with(web.client.url, ann) as client,
        client_with(web.client.url, bob) as other,
        ExitStack() as open_ones,
    ):

        def follow(caller: WebClient) -> Iterator[str]:
            stream: httpx.Response = open_ones.enter_context(caller.http.stream("GET", "/sse/sessions"))
            lines = stream.iter_lines()
            assert "event: init" in lines
            return lines

        foreign, oldest, second = follow(other), follow(client), follow(client)
        third = follow(client)
        assert any(line.startswith("retry:") for line in oldest)
        session_id = other.submit()["session_id"]
        assert any(session_id in line for line in foreign)
        session_id = client.submit()["session_id"]
        assert any(session_id in line for line in second)
        assert any(session_id in line for line in third)
        assert len(web.app.state.web.caller_limits._streams) == 2


def test_no_limit_applies_without_authentication(settings: Settings) -> None:
    with limited(settings, auth=False) as web:
        assert {web.client.post("/runs", START).status_code for _ in range(8)} == {201}
        session_id = web.client.submit()["session_id"]
        sent = {web.client.post(f"/sessions/{session_id}/events", event(session_id)).status_code for _ in range(8)}
        assert sent == {201}


def test_oldest_of_more_than_five_polls_of_runner_ends_with_204(settings: Settings) -> None:
    """Never refuse one, with or without authentication: a deployed runner ends all its work after three refusals."""
    with served(settings) as web:
        runner, other = web.client.register("one"), web.client.register("other")
        bystander = web.client.meanwhile(web.client.poll, other, 60)
        first = web.client.meanwhile(web.client.poll, runner, 60)
        web.until_parked(2)
        later = [web.client.meanwhile(web.client.poll, runner, 60) for _ in range(5)]
        assert first.result(30).status_code == 204
        web.until_parked(6)
        assert not any(poll.done() for poll in [*later, bystander])
        web.app.state.drain.start(0)
        assert {poll.result(30).status_code for poll in [*later, bystander]} == {204}
        assert not web.app.state.web.polls._of_runner


def test_each_process_counts_alone_while_redis_is_away(settings: Settings, db: DbVerbs, own_redis: OwnRedis) -> None:
    """Fail no request and exempt no caller; count in Redis again when it is back."""
    named = settings.model_copy(update={"redis_url": own_redis.url})
    with limited(named) as web, client_with(web.client.url, make_key(db, Role.USER, "ann")) as client:
        own_redis.kill()
        assert [client.post("/runs", START).status_code for _ in range(4)] == [201, 201, 201, 429]
        own_redis.start()
        assert eventually(lambda: client.post("/runs", START).status_code == 201, what="Redis counting")


class Counting(Quotas):
    """Limiter that records each round trip."""

    trips: ClassVar[list[int]] = []

    async def _hit(self, item: RateLimitItemPerMinute, key: str, cost: int) -> bool:
        self.trips.append(cost)
        return await super()._hit(item, key, cost)


@pytest.mark.anyio
async def test_frequent_caller_is_counted_in_portions_within_its_limit(settings: Settings) -> None:
    """Send many requests at once through two processes: each is allowed or refused, with far fewer round trips."""
    Counting.trips.clear()
    quota = Quota("busy", 600)
    both = (Counting(settings), Counting(settings))
    refusals: list[Refusal | None] = []

    async def send(quotas: Quotas) -> None:
        refusals.extend([await quotas.spend(quota, "ann") for _ in range(20)])

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(send, both[number % 2])
    unspent = sum(reserve.in_hand for quotas in both for reserve in quotas._reserves.values())
    assert refusals.count(None) + unspent == quota.amount
    assert unspent <= 2 * quota.amount // 60
    assert len(Counting.trips) < 200
    for quotas in both:
        await quotas.close()
