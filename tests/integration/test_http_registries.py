"""Registries over HTTP: agents, capabilities, scripts and MCP servers (PROTOCOL, Registries)."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from models.core.callers import Role
from models.registries import write
from runtime.settings import Settings
from tests.support.answer_models import check_fields
from tests.support.callers import client_with, make_key, web_with_auth
from tests.support.db_verbs import DbVerbs
from tests.support.registry_calls import AGENT, HOOK, SCRIPT, SERVER, call, changed, made, untimed
from tests.support.web import WebClient, WebInThread

RULE = "name must start with letter/number and contain only alphanumeric characters, hyphens, and underscores"


@pytest.fixture
def secured(settings: Settings, db: DbVerbs) -> Iterator[WebInThread]:
    with web_with_auth(settings) as web:
        yield web


# Agents


def test_agent_is_written_read_resolved_changed_and_deleted(client: WebClient) -> None:
    """Keep the order of keys and nulls in what clients gave; leave fields out that are not set."""
    created = made(client, "/agents", AGENT)
    assert untimed(created) == {**AGENT, "demands": {"executor_profile": "big", "tags": ["gpu"]}, "status": "active"}
    assert list(created["parameters_schema"]["properties"]) == ["z", "a"]
    assert client.get("/agents/reporter", raw="true").json() == created
    assert client.get("/agents", raw="true").json() == [created]
    for path, detail in [
        ("/agents/reporter", "Capability resolution failed: search not found"),
        ("/agents", "Capability resolution failed for agent 'reporter': search not found"),
    ]:
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (422, {"detail": detail})
    made(client, "/capabilities", {"name": "search", "description": "Searches", "text": "Search the web."})
    resolved = client.get("/agents/reporter").json()
    assert resolved["system_prompt"] == "You write.\n\n---\n\nSearch the web."
    check_fields("GET /agents/{name}", 200, resolved)
    listed = client.get("/agents").json()
    assert listed == [resolved]
    check_fields("GET /agents", 200, listed)
    for tags, number in [("internal", 1), (" weekly , internal ,", 1), ("internal,other", 0)]:
        assert len(client.get("/agents", tags=tags).json()) == number
    route, path = "/agents/{name}", "/agents/reporter"
    kept = changed(client, "PATCH", route, path, {"description": "New", "tags": None})
    assert untimed(kept) == {**untimed(created), "description": "New"}
    assert kept["created_at"] == created["created_at"] < kept["modified_at"]
    same = changed(client, "PATCH", route, path, {"description": "New"})
    assert same == kept
    empty: dict[str, Any] = {
        "parameters_schema": {},
        "output_schema": {},
        "system_prompt": "",
        "mcp_servers": {},
        "skills": [],
        "tags": [],
        "capabilities": [],
        "demands": {"hostname": None},
        "hooks": {},
        "type": "procedural",
        "script": "report",
    }
    bare = changed(client, "PATCH", route, path, empty)
    assert untimed(bare) == {
        "name": "reporter",
        "description": "New",
        "type": "procedural",
        "script": "report",
        "tags": [],
        "capabilities": [],
        "status": "active",
    }
    off = changed(client, "PATCH", "/agents/{name}/status", "/agents/reporter/status", {"status": "inactive"})
    assert off["status"] == "inactive"
    assert changed(client, "PATCH", route, path, {"script": ""})["status"] == "inactive"
    assert call(client, "DELETE", path).status_code == 204
    missing: list[tuple[str, Any]] = [("GET", None), ("PATCH", {}), ("DELETE", None)]
    for method, body in missing:
        answer = call(client, method, path, body)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Agent not found: reporter"})
    assert call(client, "PATCH", "/agents/reporter/status", {"status": "active"}).status_code == 404


def test_agents_of_runners_follow_those_of_the_registry_and_stay(client: WebClient) -> None:
    client.register(agents=[{"name": "archiver", "command": "c"}], executor={"type": "procedural"})
    made(client, "/agents", {"name": "zebra", "description": ""})
    assert [agent["name"] for agent in client.get("/agents").json()] == ["zebra", "archiver"]
    check_fields("GET /agents", 200, client.get("/agents").json())
    assert call(client, "DELETE", "/agents/archiver").status_code == 404
    assert call(client, "PATCH", "/agents/archiver", {"description": "x"}).status_code == 404
    made(client, "/agents", {"name": "archiver", "description": "of the registry"})
    assert client.get("/agents/archiver").json()["description"] == "of the registry"


def test_names_follow_one_rule_and_are_taken_once(client: WebClient) -> None:
    for path, noun, rest in [
        ("/agents", "Agent", {}),
        ("/capabilities", "Capability", {}),
        ("/scripts", "Script", {"script_file": "x.py", "script_content": ""}),
    ]:
        for name, text in [
            ("", "name is required"),
            ("a" * 61, "name must be 60 characters or less"),
            *((bad, RULE) for bad in ("-a", "a b", "a/b", "a\n", "ä")),
        ]:
            answer = client.post(path, {"name": name, "description": "d", **rest})
            assert (answer.status_code, answer.json()) == (400, {"detail": f"{noun} {text}"}), name
        made(client, path, {"name": "a" * 60, "description": "d", **rest})
        answer = client.post(path, {"name": "a" * 60, "description": "d", **rest})
        assert (answer.status_code, answer.json()) == (409, {"detail": f"{noun} already exists: {'a' * 60}"})


UNUSABLE: list[tuple[str, Any]] = [
    ("/agents", {"name": "a"}),
    ("/agents", {"name": "a", "description": None}),
    ("/agents", {"name": "a\0", "description": "d"}),
    ("/agents", {"name": "a", "description": "\0"}),
    ("/agents", {"name": "a", "description": "\ud800"}),
    ("/agents", {"name": "a", "description": "d", "type": "other"}),
    ("/agents", {"name": "a", "description": "d", "tags": "x"}),
    ("/agents", {"name": "a", "description": "d", "tags": ["x"] * 65}),
    ("/agents", {"name": "a", "description": "d", "output_schema": {"a": 2**70}}),
    ("/agents", {"name": "a", "description": "d", "parameters_schema": {"type": "nonsense"}}),
    ("/agents", {"name": "a", "description": "d", "parameters_schema": {"$ref": "http://x/y"}}),
    ("/agents", {"name": "a", "description": "d", "hooks": {"on_other": HOOK}}),
    ("/agents", {"name": "a", "description": "d", "hooks": {"on_run_start": {**HOOK, "more": 1}}}),
    ("/agents", {"name": "a", "description": "d", "hooks": {"on_run_start": {**HOOK, "timeout_seconds": 10**12}}}),
    ("/agents", {"name": "a", "description": "d", "mcp_servers": {"s": {"ref": "r", "more": 1}}}),
    ("/agents", {"name": "a", "description": "d", "mcp_servers": {"s": {"type": "stdio"}}}),
    ("/agents", {"name": "a", "description": "d", "mcp_servers": {"s": {}}}),
    ("/agents", {"name": "a", "description": "d", "system_prompt": "x" * 300_000}),
    ("/capabilities", {"name": "a", "description": "d", "type": "other"}),
    ("/scripts", {"name": "a", "description": "d", "script_file": "x.py"}),
    *(
        ("/scripts", {"name": "a", "description": "d", "script_content": "", "script_file": file})
        for file in ("", "a/b", "..", "a\\b", "script.json", "a\n", "x" * 256)
    ),
    ("/mcp-servers", {**SERVER, "more": 1}),
    *(("/mcp-servers", {**SERVER, "id": name}) for name in ("", "a/b", "..", "a\n", "x" * 256, "a\\b")),
    ("/mcp-servers", {**SERVER, "config_schema": {"a": {"required": "yes"}}}),
    ("/mcp-servers", [SERVER]),
]


def test_unusable_fields_are_refused(client: WebClient) -> None:
    for path, body in UNUSABLE:
        answer = client.post(path, body)
        assert answer.status_code == 422, (body, answer.text)
        assert answer.json()["detail"][0]["msg"]
        assert client.get(path).json() == []


def test_change_that_python_calls_equal_is_stored(client: WebClient) -> None:
    """1 and true are equal there, and objects with other orders of keys."""
    new = {"name": "s", "description": "d", "script_file": "f.py", "script_content": "x"}
    client.post("/scripts", new | {"parameters_schema": {"type": "object", "properties": {"a": {"const": 1}}}})
    changed = {"properties": {"a": {"const": True}}, "type": "object"}
    client.http.patch("/scripts/s", json={"parameters_schema": changed})
    stored = client.get("/scripts/s").json()["parameters_schema"]
    assert json.dumps(stored) == json.dumps(changed)


def test_inline_servers_are_stored(client: WebClient) -> None:
    inline = {"a": {"type": "stdio", "command": "c", "args": []}, "b": {"type": "http", "url": "u"}}
    agent = made(client, "/agents", {"name": "a", "description": "", "mcp_servers": inline})
    assert agent["mcp_servers"] == inline
    assert call(client, "POST", "/agents", {"name": "b", "description": "x" * 2**20}).status_code == 413


# Bounds, roles, audit


def test_registry_is_bounded(client: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse one entry or byte too many; changes that add nothing go on."""
    made(client, "/agents", {"name": "a", "description": "long" * 100})
    monkeypatch.setattr(write, "MOST_ENTRIES", 1)
    answer = client.post("/agents", {"name": "b", "description": ""})
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "registry_full")
    made(client, "/capabilities", {"name": "b", "description": ""})
    monkeypatch.setattr(write, "MOST_BYTES", 100)
    assert call(client, "PATCH", "/agents/a", {"system_prompt": "x"}).status_code == 422
    assert call(client, "PATCH", "/agents/a", {"description": "short"}).status_code == 200


def test_admins_alone_write_and_see_secrets_and_their_acts_are_recorded(secured: WebInThread, db: DbVerbs) -> None:
    """Every role reads; values of sensitive fields are null for others than admins."""
    url = secured.client.url
    with client_with(url, make_key(db, Role.ADMIN)) as admin:
        made(admin, "/mcp-servers", SERVER)
        made(admin, "/scripts", SCRIPT)
        changed(admin, "PATCH", "/scripts/{name}", "/scripts/report", {"description": "new"})
        changed(admin, "PATCH", "/scripts/{name}", "/scripts/report", {"description": "new"})
        assert call(admin, "DELETE", "/scripts/report").status_code == 204
        acts = [(act["act"], act["target"]) for act in admin.get("/audit").json()["entries"]][::-1]
        assert acts[1:] == [
            ("registry_entry_created", "mcp-servers/atlassian"),
            ("registry_entry_created", "scripts/report"),
            ("registry_entry_changed", "scripts/report"),
            ("registry_entry_deleted", "scripts/report"),
        ]
        for role in (Role.USER, Role.RUNNER):
            with client_with(url, make_key(db, role, "ann")) as other:
                for path in ("/agents", "/capabilities", "/scripts", "/mcp-servers"):
                    assert other.get(path).status_code == 200
                    assert other.post(path, {}).status_code == 403
                    for method in ("PATCH", "PUT", "DELETE"):
                        assert call(other, method, f"{path}/x").status_code in {403, 405}
                shown = other.get("/mcp-servers/atlassian").json()
                assert shown["default_config"] == {"token": None, "site": "x"}
                assert [shown] == other.get("/mcp-servers").json()
                assert other.get("/config/export").status_code == 403
                assert other.post("/config/import").status_code == 403
        assert admin.get("/mcp-servers/atlassian").json()["default_config"] == SERVER["default_config"]
