"""Runners that present a token: deployed runners unchanged, and tools that share a runner's token."""

import signal
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from coordinator_client.client import CoordinatorClient
from coordinator_client.errors import Refused
from coordinator_client.requests import RunRequest
from models.core.callers import Role
from testkit.cluster import Cluster
from testkit.deployed_runner import DeployedRunner
from testkit.waiting import eventually
from tests.support.callers import client_with, make_key, revoke
from tests.support.db_verbs import DbVerbs
from tests.support.issuer import IssuerOfTests, issuing
from tests.support.web import WebClient


@pytest.fixture
def issuer() -> Iterator[IssuerOfTests]:
    with issuing() as issuer:
        yield issuer


@pytest.fixture
def url(cluster: Cluster, issuer: IssuerOfTests) -> str:
    cluster.start_worker()
    return cluster.start_web(auth=1, **issuer.settings).url


@pytest.fixture
def ann(url: str, db: DbVerbs) -> Iterator[WebClient]:
    with client_with(url, make_key(db, Role.USER, "ann")) as ann:
        yield ann


def test_deployed_runner_works_with_its_token(url: str, ann: WebClient, issuer: IssuerOfTests, tmp_path: Path) -> None:
    """Register, receive work, bind, write events, report and leave with `runner:execute` of the issuer."""
    token = issuer.token(sub="machine", permissions=["runner:execute"])
    runner = DeployedRunner(tmp_path / "deployed", url, token=token)
    eventually(lambda: runner.runner_id, what="registered")
    for prompt, ending in (("now", "completed"), ("sleep 1", "completed"), ("fail", "failed")):
        run = ann.submit(parameters={"prompt": prompt})
        eventually(lambda run=run, ending=ending: ann.status(run["run_id"]) == ending, what=ending)
        result = ann.get(f"/sessions/{run['session_id']}/result")
        assert result.status_code == (200 if ending == "completed" else 400)
    assert not [entry for entry in runner.ledger() if entry.get("code") in {401, 403}]
    runner.process.send_signal(signal.SIGTERM)
    assert runner.process.wait(30) == 0


def test_deployed_runner_ends_when_its_key_is_revoked(url: str, db: DbVerbs, tmp_path: Path) -> None:
    """Answer 403 to its parked poll and the next two: it gives up, as it does after any three failures."""
    token = make_key(db, Role.RUNNER, "machine")
    runner = DeployedRunner(tmp_path / "deployed", url, token=token)
    eventually(lambda: db.one("SELECT count(*) FROM waiting_polls") == 1, what="a parked poll")
    revoke(db, token)
    assert runner.process.wait(30) != 0


@pytest.mark.anyio
async def test_tools_of_runner_start_children_in_its_tree_only(url: str, ann: WebClient, db: DbVerbs) -> None:
    """Call with the runner's own token by the client library; outside of the tree access is refused."""
    token = make_key(db, Role.RUNNER, "machine")
    with client_with(url, token) as machine:
        runner_id = machine.register()
        run = ann.submit()
        other = ann.submit(additional_demands={"tags": ["nobody"]})
        parent = machine.claim(runner_id)
        assert parent["run_id"] == run["run_id"]
        assert machine.report(parent, runner_id, "started").status_code == 200
        async with CoordinatorClient([url], token=token) as tools:
            child = await tools.submit(
                RunRequest(parameters={"prompt": "help"}, parent_session_id=parent["session_id"])
            )
            assert (await tools.run(child["run_id"]))["status"] == "pending"
            assert (await tools.stop_session(child["session_id"]))["status"] == "stopped"
            with pytest.raises(Refused, match="404"):
                await tools.run(other["run_id"])
            with pytest.raises(Refused, match="403"):
                await tools.submit(RunRequest(parameters={"prompt": "a session of its own"}))
        assert ann.get(f"/sessions/{child['session_id']}").json()["session"]["owner"] == "ann"


@pytest.mark.anyio
async def test_client_library_follows_feed_with_token(url: str, ann: WebClient) -> None:
    """Raise for an invalid token."""
    ann.submit(session_id="anns")
    async with CoordinatorClient([url], token=ann.token) as client, aclosing(client.feed(init=True)) as items:
        first = await anext(items)
    assert (first.event, [session["session_id"] for session in first.data["sessions"]]) == ("init", ["anns"])
    async with CoordinatorClient([url], token="nothing") as client:
        with pytest.raises(Refused, match="401"):
            await anext(aiter(client.feed()))
