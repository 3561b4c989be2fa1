"""Calls of the registries over HTTP, and bodies of entries."""

import json
from typing import Any

import httpx

from tests.support.answer_models import check_fields
from tests.support.web import WebClient

HOOK = {"type": "agent", "agent_name": "checker", "on_error": "block", "timeout_seconds": 5}
AGENT: dict[str, Any] = {
    "name": "reporter",
    "description": "Writes the report",
    "type": "autonomous",
    "parameters_schema": {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "integer"}}},
    "output_schema": {"type": "object"},
    "system_prompt": "You write.",
    "mcp_servers": {"issues": {"ref": "atlassian", "config": {"site": None, "n": 1}}},
    "skills": ["pdf"],
    "tags": ["internal", "weekly"],
    "capabilities": ["search"],
    "demands": {"executor_profile": "big", "tags": ["gpu"]},
    "hooks": {"on_run_start": HOOK},
}
SCRIPT: dict[str, Any] = {
    "name": "report",
    "description": "Makes a table",
    "script_file": "run.py",
    "script_content": "print('ä')\n",
    "parameters_schema": {"type": "object"},
    "demands": {"tags": ["gpu"]},
}
SERVER: dict[str, Any] = {
    "id": "atlassian",
    "name": "Atlassian",
    "url": "http://localhost:9000/mcp",
    "config_schema": {"token": {"type": "string", "required": True, "sensitive": True}, "site": {}},
    "default_config": {"token": "s3cret", "site": "x"},
}


def call(client: WebClient, method: str, path: str, body: Any = None) -> httpx.Response:
    return client.raw(path, b"" if body is None else json.dumps(body).encode(), method)


def made(client: WebClient, path: str, body: Any) -> Any:
    answer = client.post(path, body)
    assert answer.status_code == 201, answer.text
    check_fields(f"POST {path}", 201, answer.json())
    return answer.json()


def changed(client: WebClient, method: str, route: str, path: str, body: Any) -> Any:
    answer = call(client, method, path, body)
    assert answer.status_code == 200, answer.text
    check_fields(f"{method} {route}", 200, answer.json())
    return answer.json()


def untimed(entry: Any) -> Any:
    return {name: value for name, value in entry.items() if not name.endswith("_at")}
