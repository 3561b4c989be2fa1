"""Capabilities, scripts and MCP servers over HTTP (PROTOCOL, Registries)."""

import io
import json
import tarfile
from typing import Any

from tests.support.answer_models import check_fields
from tests.support.registry_calls import SCRIPT, SERVER, call, changed, made, untimed
from tests.support.web import WebClient

MISSING: list[tuple[str, Any]] = [("GET", None), ("PATCH", {}), ("DELETE", None)]
MISSING_SERVER: list[tuple[str, Any]] = [("GET", None), ("PUT", {}), ("DELETE", None)]


def test_capability_follows_the_rules_of_its_type(client: WebClient) -> None:
    made(client, "/scripts", SCRIPT)
    servers = {"s": {"ref": "r"}}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"type": "script", "mcp_servers": servers}, "Capability type 'script' cannot have 'mcp_servers'"),
        ({"type": "mcp", "script": "report"}, "Capability type 'mcp' cannot have 'script'"),
        ({"script": "report"}, "Capability type 'text' cannot have 'script'"),
        ({"mcp_servers": servers}, "Capability type 'text' cannot have 'mcp_servers'"),
        ({"type": "script", "script": "none"}, "Script not found: none"),
    ]
    for fields, text in refused:
        answer = client.post("/capabilities", {"name": "c", "description": "d", **fields})
        assert (answer.status_code, answer.json()) == (400, {"detail": text})
    made(client, "/capabilities", {"name": "c", "description": "d", "type": "mcp"})
    route, path = "/capabilities/{name}", "/capabilities/c"
    full = changed(client, "PATCH", route, path, {"mcp_servers": servers, "text": "t"})
    assert untimed(full) == {"name": "c", "description": "d", "type": "mcp", "text": "t", "mcp_servers": servers}
    assert client.get(path).json() == full
    check_fields(f"GET {route}", 200, full)
    listed = client.get("/capabilities").json()
    check_fields("GET /capabilities", 200, listed)
    assert untimed(listed[0]) == {
        "name": "c",
        "description": "d",
        "type": "mcp",
        "has_script": False,
        "script_name": None,
        "has_text": True,
        "has_mcp": True,
        "mcp_server_names": ["s"],
    }
    refused = [
        ({"type": "script"}, "Capability type 'script' cannot have 'mcp_servers'"),
        ({"script": "report"}, "Capability type 'mcp' cannot have 'script'"),
        ({"type": "script", "mcp_servers": {}, "script": "none"}, "Script not found: none"),
    ]
    for fields, text in refused:
        answer = call(client, "PATCH", path, fields)
        assert (answer.status_code, answer.json()) == (400, {"detail": text})
    moved = changed(client, "PATCH", route, path, {"type": "script", "mcp_servers": {}, "script": "report", "text": ""})
    assert untimed(moved) == {"name": "c", "description": "d", "type": "script", "script": "report"}
    for method, body in MISSING:
        answer = call(client, method, "/capabilities/none", body)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Capability not found: none"})


def test_entries_that_agents_name_are_kept(client: WebClient) -> None:
    """Capabilities may name a script that is deleted, and agents an MCP server."""
    made(client, "/scripts", SCRIPT)
    made(client, "/capabilities", {"name": "c", "description": "d", "type": "script", "script": "report"})
    made(client, "/mcp-servers", SERVER)
    for name in ("b", "a"):
        made(client, "/agents", {"name": name, "description": "", "capabilities": ["c"], "script": "report"})
    for path, text in [
        ("/capabilities/c", "Capability is referenced by agents: a, b"),
        ("/scripts/report", "Script is referenced by agents: a, b"),
    ]:
        answer = call(client, "DELETE", path)
        assert answer.status_code == 409
        assert answer.json() == {"detail": text}
    for name in ("a", "b"):
        assert call(client, "DELETE", f"/agents/{name}").status_code == 204
    for path in ("/scripts/report", "/capabilities/c", "/mcp-servers/atlassian"):
        assert call(client, "DELETE", path).status_code == 204


def test_script_is_written_downloaded_renamed_and_deleted(client: WebClient) -> None:
    created = made(client, "/scripts", SCRIPT)
    assert untimed(created) == SCRIPT
    assert client.get("/scripts/report").json() == created
    check_fields("GET /scripts/{name}", 200, created)
    listed = client.get("/scripts").json()
    check_fields("GET /scripts", 200, listed)
    assert untimed(listed[0]) == {
        "name": "report",
        "description": "Makes a table",
        "script_file": "run.py",
        "has_parameters_schema": True,
        "has_demands": True,
        "demand_tags": ["gpu"],
    }
    answer = client.get("/scripts/report/download")
    assert answer.headers["content-type"] == "application/gzip"
    assert answer.headers["content-disposition"] == 'attachment; filename="report.tar.gz"'
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        contents = {name: file.read() for name, file in files.items() if file is not None}
    assert set(contents) == {"report/script.json", "report/run.py"}
    assert contents["report/run.py"].decode() == SCRIPT["script_content"]
    record = {name: value for name, value in SCRIPT.items() if name != "script_content"}
    assert {**json.loads(contents["report/script.json"])} == record
    renamed = changed(
        client,
        "PATCH",
        "/scripts/{name}",
        "/scripts/report",
        {"script_file": "main.py", "parameters_schema": {}, "demands": {"tags": []}},
    )
    assert untimed(renamed) == {
        "name": "report",
        "description": "Makes a table",
        "script_file": "main.py",
        "script_content": SCRIPT["script_content"],
    }
    assert call(client, "DELETE", "/scripts/report").status_code == 204
    for path in ("/scripts/report", "/scripts/report/download", "/scripts/a%00b"):
        assert client.get(path).status_code == 404
    assert client.get("/scripts/report/download").json() == {"detail": "Script not found: report"}


def test_mcp_server_is_written_and_changed_in_part(client: WebClient) -> None:
    created = made(client, "/mcp-servers", SERVER)
    token = {"type": "string", "description": None, "required": True, "sensitive": True, "default": None}
    site = {"type": "string", "description": None, "required": False, "sensitive": False, "default": None}
    assert untimed(created) == {**SERVER, "description": None, "config_schema": {"token": token, "site": site}}
    made(client, "/mcp-servers", {"id": "zz", "name": "Aaa", "url": ""})
    listed = client.get("/mcp-servers").json()
    check_fields("GET /mcp-servers", 200, listed)
    assert [server["id"] for server in listed] == ["zz", "atlassian"]
    route, path = "/mcp-servers/{server_id}", "/mcp-servers/atlassian"
    kept = changed(client, "PUT", route, path, {"url": "http://other", "description": None, "default_config": {}})
    assert untimed(kept) == {**untimed(created), "url": "http://other", "default_config": {}}
    assert client.get(path).json() == kept
    answer = client.post("/mcp-servers", SERVER)
    assert (answer.status_code, answer.json()) == (409, {"detail": "MCP server 'atlassian' already exists"})
    assert call(client, "PUT", path, {"id": "other"}).status_code == 422
    assert call(client, "DELETE", path).status_code == 204
    for method, body in MISSING_SERVER:
        answer = call(client, method, path, body)
        assert (answer.status_code, answer.json()) == (404, {"detail": "MCP server not found: atlassian"})
