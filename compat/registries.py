"""Calls of the registries: agents, capabilities, scripts, MCP servers, and the archive of them."""

from typing import Any, Final

from compat.recorder import Recorder

PREFIX: Final = "registry: "
AGENT: Final = {"name": "compat-agent", "description": "d", "system_prompt": "be brief", "tags": ["a", "b"]}
CAPABILITY: Final = {"name": "compat-cap", "description": "d", "type": "text", "text": "know this"}
SCRIPT: Final = {
    "name": "compat-script",
    "description": "d",
    "script_file": "run.py",
    "script_content": "print(1)",
    "parameters_schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
}
MCP_SERVER: Final = {
    "id": "compat-mcp",
    "name": "Compat",
    "url": "http://mcp.invalid",
    "config_schema": {"token": {"type": "string", "required": True}},
    "default_config": {"level": "1"},
}
# Path, one entry, a change of it, the method of changes, and the field that names it.
NOUNS: Final[tuple[tuple[str, dict[str, Any], dict[str, Any], str, str], ...]] = (
    ("/scripts", SCRIPT, {"description": "e"}, "PATCH", "name"),
    ("/mcp-servers", MCP_SERVER, {"description": "e"}, "PUT", "id"),
    ("/capabilities", CAPABILITY, {"text": "know that"}, "PATCH", "name"),
    ("/agents", AGENT | {"capabilities": ["compat-cap"]}, {"description": "e"}, "PATCH", "name"),
)


def make_registry_calls(recorder: Recorder) -> None:
    def call(name: str, method: str, path: str, body: Any = None) -> None:
        recorder.call(f"{PREFIX}{name}", method, path, body)

    for path, entry, change, method, key in NOUNS:
        one = f"{path}/{entry[key]}"
        call(f"GET {path}, none", "GET", path)
        call(f"GET {path}/X, unknown", "GET", f"{path}/unknown")
        call(f"POST {path}, no name", "POST", path, {"description": "d"})
        call(f"POST {path}", "POST", path, entry)
        call(f"POST {path}, twice", "POST", path, entry)
        call(f"GET {path}", "GET", path)
        call(f"GET {one}", "GET", one)
        call(f"{method} {one}", method, one, change)
        call(f"{method} {path}/X, unknown", method, f"{path}/unknown", change)
    call("POST /agents, bad name", "POST", "/agents", AGENT | {"name": "no spaces"})
    call("POST /capabilities, bad type", "POST", "/capabilities", CAPABILITY | {"name": "c", "mcp_servers": {}})
    call("GET /agents?tags=", "GET", "/agents?tags=a,b")
    call("GET /agents?tags=, none", "GET", "/agents?tags=a,c")
    call("GET /agents/compat-agent?raw=true", "GET", "/agents/compat-agent?raw=true")
    call("PATCH /agents/compat-agent/status", "PATCH", "/agents/compat-agent/status", {"status": "inactive"})
    call("DELETE /capabilities/compat-cap, referenced", "DELETE", "/capabilities/compat-cap")
    call("GET /scripts/compat-script/download", "GET", "/scripts/compat-script/download")
    for path, entry, _, _, key in reversed(NOUNS):
        call(f"DELETE {path}/{entry[key]}", "DELETE", f"{path}/{entry[key]}")
        call(f"DELETE {path}/X, unknown", "DELETE", f"{path}/unknown")
