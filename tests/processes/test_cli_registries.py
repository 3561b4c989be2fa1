"""Commands of the registries, and the calls of the client behind them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from coordinator_client.client import CoordinatorClient
from coordinator_client.errors import Refused
from testkit.cluster import Cluster
from tests.support.command import Ended, coordinator


def test_entries_are_put_listed_shown_and_deleted(cluster: Cluster, tmp_path: Path) -> None:
    """Put what `show` printed, without a field: it goes. Exit with 1 for unknown entries, with 2 for no JSON."""
    url = cluster.start_web().url

    def command(*arguments: str) -> Ended:
        return coordinator(*arguments, COORDINATOR_URL=url)

    def put(registry: str, fields: dict[str, Any]) -> Ended:
        file = tmp_path / "entry.json"
        file.write_text(json.dumps(fields))
        return command(registry, "put", str(file))

    assert command("agents", "list").stdout == "no agents\n"
    agent = {"name": "a", "description": "Writes\x1b[2J", "tags": ["x"], "system_prompt": "p", "status": "inactive"}
    done = put("agents", agent)
    assert (done.returncode, done.stdout) == (0, "agents/a is written\n")
    listed = command("agents", "list").stdout
    assert "inactive" in listed
    assert "\x1b" not in listed
    shown = json.loads(command("agents", "show", "a").stdout)
    assert {name: shown[name] for name in agent} == agent
    put("agents", {name: value for name, value in shown.items() if name != "system_prompt"} | {"status": "active"})
    shown = json.loads(command("agents", "show", "a", "--resolved").stdout)
    assert ("system_prompt" in shown, shown["status"]) == (False, "active")
    put("scripts", {"name": "s", "description": "d", "script_file": "s.py", "script_content": "x"})
    put("capabilities", {"name": "c", "description": "d", "type": "script", "script": "s"})
    put("mcp-servers", {"id": "m", "name": "Server", "url": "u"})
    done = put("mcp-servers", json.loads(command("mcp-servers", "show", "m").stdout) | {"url": "v"})
    assert done.returncode == 0, done.stderr
    for registry, name, cell in [("scripts", "s", "s.py"), ("capabilities", "c", "script"), ("mcp-servers", "m", "v")]:
        assert cell in command(registry, "list").stdout
        assert json.loads(command(registry, "list", "--json").stdout)
        assert command(registry, "delete", name).stdout == f"{registry}/{name} is deleted\n"
    assert command("agents", "show", "none").returncode == 1
    assert command("agents", "put", str(tmp_path / "none.json")).returncode == 2
    (tmp_path / "bad").write_text("[1]")
    assert command("agents", "put", str(tmp_path / "bad")).returncode == 2

    async def call() -> None:
        async with CoordinatorClient(url) as client:
            assert [each["name"] for each in await client.agents(tags="x")] == ["a"]
            assert (await client.set_agent_status("a", "inactive"))["status"] == "inactive"
            with pytest.raises(Refused, match="Agent name must start"):
                await client.put_entry("agents", {"name": "-", "description": ""})
            with pytest.raises(ValueError, match="name"):
                await client.put_entry("agents", {})
            await client.delete_entry("agents", "a")
            assert await client.entries("agents") == []

    asyncio.run(call())
