"""Serialize entries of the registries as the models of app/schemas/registries.py define them."""

from typing import Any

from models.registries.records import Agent, Capability, McpServer, Script, json_of, without_nulls


def registered_agent_json(agent: Agent) -> dict[str, Any]:
    return without_nulls(json_of(agent))


def capability_json(capability: Capability) -> dict[str, Any]:
    return without_nulls(json_of(capability))


def capability_summary_json(capability: Capability) -> dict[str, Any]:
    return {
        "name": capability.name,
        "description": capability.description,
        "type": capability.type,
        "has_script": capability.script is not None,
        "script_name": capability.script,
        "has_text": capability.text is not None,
        "has_mcp": capability.mcp_servers is not None,
        "mcp_server_names": list(capability.mcp_servers or ()),
        "created_at": capability.created_at,
        "modified_at": capability.modified_at,
    }


def script_json(script: Script) -> dict[str, Any]:
    return without_nulls(json_of(script))


def script_summary_json(script: Script) -> dict[str, Any]:
    return {
        "name": script.name,
        "description": script.description,
        "script_file": script.script_file,
        "has_parameters_schema": script.parameters_schema is not None,
        "has_demands": script.demands is not None,
        "demand_tags": list(script.demands.tags) if script.demands is not None else [],
        "created_at": script.created_at,
        "modified_at": script.modified_at,
    }


def mcp_server_json(server: McpServer, *, masked: bool) -> dict[str, Any]:
    """Return the server, its nulls included; ``masked``: without the defaults of fields that are called sensitive."""
    shown: dict[str, Any] = json_of(server)
    if masked:
        sensitive = {name for name, field in (server.config_schema or {}).items() if field.sensitive}
        for name in sensitive:
            shown["config_schema"][name]["default"] = None
        if server.default_config is not None:
            shown["default_config"] = {
                name: None if name in sensitive else value for name, value in shown["default_config"].items()
            }
    return shown
