"""Webhooks over HTTP: their life, bad bodies, owners, and the commands and the client for them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from coordinator_client import CoordinatorClient
from models.core.callers import Role
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.answer_models import check_fields
from tests.support.callers import client_with, make_key, web_with_auth
from tests.support.command import coordinator
from tests.support.db_verbs import DbVerbs
from tests.support.reports import finished
from tests.support.web import JSON, WebClient, WebInThread
from tests.support.webhooks import matched, receiving, sending

PUBLIC: dict[str, Any] = {"url": "https://8.8.8.8/hook", "events": ["run.completed", "session.finished"]}


def put(client: WebClient, webhook_id: str, body: Any) -> httpx.Response:
    return client.http.put(f"/webhooks/{webhook_id}", content=json.dumps(body).encode(), headers=JSON)


def shown(endpoint: str, answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    check_fields(endpoint, status, answer.json())
    return answer.json()


def test_webhook_from_creation_to_deletion(web: WebInThread, settings: Settings, db: DbVerbs) -> None:
    """Show the secret once; list its messages with what was answered; replay, test, rotate, delete."""
    client = web.client
    made = shown("PUT /webhooks/{webhook_id}", put(client, "ci", PUBLIC | {"labels": {"team": "sky"}}), 201)
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert shown("GET /webhooks/{webhook_id}", client.get("/webhooks/ci")) == made
    replaced = shown("PUT /webhooks/{webhook_id}", put(client, "ci", PUBLIC))
    assert (replaced["labels"], replaced["created_at"]) == ({}, made["created_at"])
    assert shown("GET /webhooks", client.get("/webhooks"))["webhooks"] == [replaced]
    with receiving() as receiver:
        # As if it had been allowed then.
        db.rows("UPDATE webhooks SET url = :u", u=receiver.url)
        finished(db)
        matched(db)
        tested = shown("POST /webhooks/{webhook_id}/test", client.post("/webhooks/ci/test"), 202)
        assert (tested["event_type"], tested["session_id"], tested["state"]) == ("webhook.test", None, "pending")
        with sending(settings):
            delivered = "/webhooks/ci/deliveries"
            eventually(lambda: len(client.get(delivered, state="delivered").json()["deliveries"]) == 3)
        page = shown("GET /webhooks/{webhook_id}/deliveries", client.get(delivered, limit=2))
        assert [each["event_type"] for each in page["deliveries"]] == ["webhook.test", "session.finished"]
        assert {each["response_status"] for each in page["deliveries"]} == {204}
        rest = shown("GET /webhooks/{webhook_id}/deliveries", client.get(delivered, cursor=page["next_cursor"]))
        (first,) = rest["deliveries"]
        endpoint = "POST /webhooks/{webhook_id}/deliveries/{event_id}/replay"
        again = shown(endpoint, client.post(f"{delivered}/{first['event_id']}/replay"), 202)
        assert (again["state"], again["attempts"]) == ("pending", 0)
        rotated = shown("POST /webhooks/{webhook_id}/rotate-secret", client.post("/webhooks/ci/rotate-secret"))
        with sending(settings):
            eventually(lambda: len(receiver.messages) == 4, what="the replay")
    for each in (secret, rotated["secret"]):
        assert receiver.messages[-1].verify(each)["type"] == "run.completed"
    assert secret not in client.get("/webhooks/ci").text
    shown("DELETE /webhooks/{webhook_id}", client.http.delete("/webhooks/ci"))
    for path in ("/webhooks/ci", "/webhooks/ci/deliveries"):
        assert client.get(path).json() == {"detail": "Webhook not found"}
    for path in ("test", "rotate-secret", "deliveries/evt_x/replay"):
        assert client.post(f"/webhooks/ci/{path}").status_code == 404


BAD: list[tuple[Any, str]] = [
    ([], "body"),
    ({}, "url"),
    (PUBLIC | {"events": []}, "events"),
    (PUBLIC | {"events": ["run.completed"] * 2}, "events"),
    (PUBLIC | {"events": ["run.started"]}, "events"),
    (PUBLIC | {"events": "run.completed"}, "events"),
    (PUBLIC | {"secret": "whsec_x"}, "secret"),
    (PUBLIC | {"disabled": "yes"}, "disabled"),
    (PUBLIC | {"labels": {"x": 1}}, "labels"),
    (PUBLIC | {"labels": {f"k{place}": "v" for place in range(33)}}, "labels"),
    (PUBLIC | {"agent_name": "x" * 2_000}, "agent_name"),
    (PUBLIC | {"agent_name": "\x00"}, "agent_name"),
    (PUBLIC | {"description": "\ud800"}, "description"),
    (PUBLIC | {"description": 10**30}, "description"),
    (PUBLIC | {"url": "http://8.8.8.8/"}, "url"),
    (PUBLIC | {"url": "https://127.0.0.1:9000/"}, "url"),
    (PUBLIC | {"url": "https://localhost/"}, "url"),
    (PUBLIC | {"url": "https://2130706433/"}, "url"),
    (PUBLIC | {"url": "https://[::ffff:10.0.0.1]/"}, "url"),
    (PUBLIC | {"url": "https://169.254.169.254/latest/meta-data"}, "url"),
    (PUBLIC | {"url": "https://user:word@8.8.8.8/"}, "url"),
    (PUBLIC | {"url": "x" * 3_000}, "url"),
    (PUBLIC | {"url": None}, "url"),
]


def test_bad_webhook_is_refused_with_what_to_change(web: WebInThread, db: DbVerbs) -> None:
    for body, place in BAD:
        answer = put(web.client, "ci", body)
        assert answer.status_code == 422, (body, answer.text)
        assert place in str(answer.json()["detail"][0]["loc"]), (body, answer.text)
    for webhook_id in ("%00", "x" * 129, "a b", "a%2Fb", "ü", "%2E", "%2E%2E"):
        assert put(web.client, webhook_id, PUBLIC).status_code in {404, 422}, webhook_id
    assert put(web.client, "ci", PUBLIC | {"url": "https://nowhere.invalid/hook"}).status_code == 201
    for query in ({"state": "sent"}, {"limit": 0}, {"limit": "x"}, {"since": "x"}):
        assert web.client.get("/webhooks/ci/deliveries", **query).status_code == 422, query
    for cursor in ("x", "-1", "9" * 30, "\x00"):
        assert web.client.get("/webhooks/ci/deliveries", cursor=cursor).status_code in {400, 422}, cursor
    assert web.client.post("/webhooks/ci/deliveries/%00/replay").status_code == 404
    assert db.count("webhooks") == 1


@pytest.fixture
def owned(settings: Settings) -> Iterator[WebInThread]:
    with web_with_auth(settings) as web:
        yield web


def test_owners_have_their_own_webhooks(owned: WebInThread, db: DbVerbs) -> None:
    """Answer another owner as for an unknown id; show an admin all; refuse runners; audit what an admin changes."""
    url = owned.client.url
    with (
        client_with(url, make_key(db, Role.USER, "ann")) as ann,
        client_with(url, make_key(db, Role.USER, "bob")) as bob,
        client_with(url, make_key(db, Role.ADMIN)) as admin,
        client_with(url, make_key(db, Role.RUNNER, "ann")) as runner,
    ):
        assert put(ann, "anns", PUBLIC).json()["owner"] == "ann"
        assert put(admin, "everything", PUBLIC).json()["owner"] is None
        finished(db)
        ann.submit()
        refused = put(bob, "anns", PUBLIC)
        assert (refused.status_code, refused.json()) == (409, {"detail": "Webhook 'anns' already exists"})
        for webhook_id in ("anns", "everything", "none"):
            calls = [
                bob.get(f"/webhooks/{webhook_id}"),
                bob.get(f"/webhooks/{webhook_id}/deliveries"),
                bob.post(f"/webhooks/{webhook_id}/test"),
                bob.post(f"/webhooks/{webhook_id}/rotate-secret"),
                bob.post(f"/webhooks/{webhook_id}/deliveries/evt_x/replay"),
                bob.http.delete(f"/webhooks/{webhook_id}"),
            ]
            assert [(answer.status_code, answer.text) for answer in calls] == [
                (404, '{"detail":"Webhook not found"}')
            ] * len(calls)
        assert bob.get("/webhooks").json() == {"webhooks": []}
        assert [each["webhook_id"] for each in ann.get("/webhooks").json()["webhooks"]] == ["anns"]
        assert len(admin.get("/webhooks").json()["webhooks"]) == 2
        assert {put(runner, "x", PUBLIC).status_code, runner.get("/webhooks").status_code} == {403}
        matched(db)
        assert ann.get("/webhooks/anns/deliveries").json() == {"deliveries": []}
        assert len(admin.get("/webhooks/everything/deliveries").json()["deliveries"]) == 2
        assert put(admin, "anns", PUBLIC | {"disabled": True}).json()["owner"] == "ann"
        assert ann.post("/webhooks/anns/test").status_code == 409
        assert ann.post("/webhooks/anns/rotate-secret").status_code == 200
        admin.http.delete("/webhooks/anns")
        acts = [(act["act"], act["target"], act["owner"]) for act in admin.get("/audit").json()["entries"]]
    assert [act for act in acts if act[0].startswith("webhook")] == [
        ("webhook_deleted", "anns", "ann"),
        ("webhook_changed", "anns", "ann"),
        ("webhook_created", "everything", None),
    ]


async def test_client_has_every_call(web: WebInThread, db: DbVerbs) -> None:
    async with CoordinatorClient(web.client.url) as client:
        made = await client.put_webhook("ci", PUBLIC["url"], PUBLIC["events"], agent_name="writer", labels={"k": "v"})
        assert "secret" in made
        assert [each["webhook_id"] for each in (await client.webhooks(limit=5))["webhooks"]] == ["ci"]
        assert (await client.webhook("ci"))["labels"] == {"k": "v"}
        sent = await client.test_webhook("ci")
        page = await client.webhook_deliveries("ci", state="pending", limit=5)
        assert [each["event_id"] for each in page["deliveries"]] == [sent["event_id"]]
        assert (await client.replay_webhook_delivery("ci", sent["event_id"]))["state"] == "pending"
        assert (await client.rotate_webhook_secret("ci"))["secret"] != made.get("secret")
        assert (await client.delete_webhook("ci"))["webhook_id"] == "ci"


def test_commands_manage_webhooks(web: WebInThread, tmp_path: Path) -> None:
    """Create one from a file, show, test, list, replay, rotate and delete it; say what is wrong with a file."""

    def run(*arguments: str, stdin: str = "") -> Any:
        return coordinator("webhooks", *arguments, "--url", web.client.url, stdin=stdin, home=tmp_path)

    (tmp_path / "hook.json").write_text(json.dumps(PUBLIC))
    made = run("put", "ci", str(tmp_path / "hook.json"))
    assert made.returncode == 0, made.stderr
    assert "whsec_" in made.stdout
    assert "shown once" in made.stderr
    assert "whsec_" not in run("put", "ci", "-", stdin=json.dumps(PUBLIC)).stdout
    assert "https://8.8.8.8/hook" in run("list").stdout
    assert "run.completed" in run("show", "ci").stdout
    event = run("test", "ci").stdout.split()[0]
    assert json.loads(run("deliveries", "ci", "--json").stdout)["deliveries"][0]["event_id"] == event
    assert "webhook.test" in run("deliveries", "ci", "--state", "pending").stdout
    assert run("replay", "ci", event).stdout.strip() == f"{event} is pending"
    assert "whsec_" in run("rotate", "ci").stdout
    for wrong in ("", "[]", '{"url": "x"}', json.dumps(PUBLIC | {"urls": 1}), json.dumps(PUBLIC | {"events": 1})):
        assert run("put", "ci", "-", stdin=wrong).returncode == 2, wrong
    assert run("put", "ci", str(tmp_path / "missing.json")).returncode == 2
    refused = run("put", "ci", "-", stdin=json.dumps(PUBLIC | {"url": "https://10.0.0.1/"}))
    assert (refused.returncode, "public addresses only" in refused.stderr) == (1, True)
    assert run("delete", "ci").returncode == 0
    assert run("show", "ci").returncode == 1
