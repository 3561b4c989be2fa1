"""Check keys while Redis or Postgres is away: revocation reaches every instance, and known callers are served on."""

from contextlib import ExitStack

import httpx
import pytest
from sqlalchemy import Engine

from models.core.callers import Role
from testkit.cluster import Cluster
from testkit.feed_follower import open_stream
from testkit.servers import OwnPostgres, OwnRedis
from testkit.waiting import eventually
from tests.support.callers import bearer, client_with, make_key, revoke
from tests.support.db_verbs import DbVerbs
from tests.support.web import PROMPT, WebClient

# Bound that docs/security.md promises.
REVOKED_SECONDS = 5


@pytest.mark.parametrize("redis", ["there", "stopped", "frozen"])
def test_revocation_reaches_every_instance_within_five_seconds(
    cluster: Cluster, db: DbVerbs, own_redis: OwnRedis, redis: str
) -> None:
    """Check a new request, a parked poll, a wait and a stream on each of three instances, with and without Redis."""
    webs = [cluster.start_web(wait=False, auth=1, redis_url=own_redis.url) for _ in range(3)]
    for web in webs:
        cluster.wait_until_ready(web)
    user, machine, other = (make_key(db, role, role) for role in (Role.USER, Role.RUNNER, Role.ADMIN))
    with ExitStack() as stack:
        if redis != "there":
            {"stopped": own_redis.stop, "frozen": own_redis.freeze}[redis]()
            stack.callback({"stopped": own_redis.start, "frozen": own_redis.thaw}[redis])
        users = [stack.enter_context(client_with(web.url, user)) for web in webs]
        runners = [stack.enter_context(client_with(web.url, machine)) for web in webs]
        run_id = users[0].submit(additional_demands={"tags": ["nobody"]})["run_id"]
        held = [client.meanwhile(client.get, f"/runs/{run_id}", wait=60) for client in users]
        held += [one.meanwhile(one.poll, one.register(f"host {place}"), 60) for place, one in enumerate(runners)]
        streams = [stack.enter_context(open_stream(web.url, None, **bearer(user))) for web in webs]
        for stream in streams:
            stream.until("init")
        eventually(lambda: db.one("SELECT count(*) FROM waiting_polls") == len(webs), what="parked polls")

        revoke(db, user)
        revoke(db, machine)
        eventually(
            lambda: {one.get("/runs").status_code for one in [*users, *runners]} == {403}, REVOKED_SECONDS, every=0.1
        )
        answers = [one.result(REVOKED_SECONDS) for one in held]
        assert [answer.status_code for answer in answers] == [403] * len(held)
        for stream in streams:
            # Read to its end.
            list(stream.messages(within=REVOKED_SECONDS))
        for web in webs:
            assert httpx.get(f"{web.url}/runs", headers=bearer(other)).status_code == 200


def test_known_callers_are_served_while_postgres_is_away(
    cluster: Cluster, own_postgres: OwnPostgres, own_engine: Engine
) -> None:
    """Hold a parked and a new poll until 204; tell clients to retry, never that their key is invalid. A caller unknown
    to this instance is held or told to retry too, and admitted when Postgres is back.
    """
    db = DbVerbs(own_engine)
    web = cluster.start_web(auth=1, database_url=own_postgres.url)
    known, machine, late = (
        make_key(db, role, owner) for role, owner in ((Role.USER, "ann"), (Role.RUNNER, "one"), (Role.RUNNER, "two"))
    )
    with (
        client_with(web.url, known) as user,
        client_with(web.url, machine) as runner,
        client_with(web.url, late) as unknown,
    ):
        user.submit(additional_demands={"tags": ["nobody"]})
        runner_id = runner.register()
        parked = runner.meanwhile(runner.poll, runner_id, 5)
        eventually(lambda: db.one("SELECT count(*) FROM waiting_polls") == 1, what="a parked poll")
        own_engine.dispose()
        own_postgres.kill()
        try:
            assert parked.result(30).status_code == 204
            assert runner.poll(runner_id, 1).status_code == 204
            assert unknown.poll(runner_id, 1).status_code == 204
            body = {"type": "start_session", "parameters": PROMPT}
            for who in (user, unknown):
                refused = who.post("/runs", body)
                assert (refused.status_code, bool(refused.headers["Retry-After"])) == (503, True)
            assert user.post("/runner/heartbeat", {"runner_id": runner_id}).status_code == 403
            assert WebClient(web.url).get("/runs").status_code == 401
            beat = runner.meanwhile(runner.post, "/runner/heartbeat", {"runner_id": runner_id})
            strange = unknown.meanwhile(unknown.post, "/runner/heartbeat", {"runner_id": runner_id})
        finally:
            own_postgres.start()
        assert beat.result(30).status_code == 200
        assert strange.result(30).status_code == 401
        eventually(lambda: user.post("/runs", body).status_code == 201, what="submissions")
    assert "Traceback" not in web.log()


def test_process_that_never_saw_postgres_admits_no_caller(cluster: Cluster, own_postgres: OwnPostgres) -> None:
    """The process cannot know whether a key exists: polls end in 204, streams in 200, and no runner gives up."""
    own_postgres.stop()
    web = cluster.start_web(wait=False, database_url=own_postgres.url)
    try:
        eventually(lambda: _answers(web.url), 30, what="a web process")
        client = WebClient(web.url)
        assert client.poll("lnch_x", 0).status_code == 204
        assert client.get("/runs").status_code == 503
        with open_stream(web.url) as stream:
            assert stream.response.status == 200
            assert [message.retry for message in stream.messages(within=30)] == [2000]
    finally:
        own_postgres.start()
    eventually(lambda: client.get("/runs").status_code == 200, 30, what="an open house")


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/live").status_code == 200
    except httpx.HTTPError:
        return False
