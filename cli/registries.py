"""Commands `agents`, `capabilities`, `scripts` and `mcp-servers`: list, show, write and delete their entries."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client import AsJson, Urls, call
from cli.tokens import CaOption, TokenOption

if TYPE_CHECKING:
    from coordinator_client.client import CoordinatorClient
    from coordinator_client.registry_calls import Registry

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the entry; id of an MCP server.")]
FileArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", exists=True, dir_okay=False, allow_dash=True, help="JSON object; `-` reads it from stdin."
    ),
]


def commands_of(registry: "Registry", noun: str, nouns: str) -> typer.Typer:
    """Return the group of commands of one registry."""
    group = typer.Typer(help=f"List, show, write and delete {nouns}.", no_args_is_help=True)
    group.command("list", help=f"List all {nouns}.")(_listing(registry))
    if registry == "agents":
        group.command("show", help="Show an agent as it was written.")(_show_agent)
    else:
        group.command("show", help=f"Show one {noun}, as JSON.")(_showing(registry))
    group.command(
        "put",
        help=f"Create one {noun}, or give that of its name the fields of a file. `show` writes such files.",
    )(_putting(registry))
    group.command("delete", help=f"Delete one {noun}.")(_deleting(registry))
    return group


def _listing(registry: "Registry") -> Any:
    def list_entries(url: Urls = None, token: TokenOption = "", ca: CaOption = "", as_json: AsJson = False) -> None:
        from cli.registry_views import show_entries

        async def work(client: "CoordinatorClient") -> int:
            show_entries(registry, await client.entries(registry), as_json=as_json)
            return 0

        call(url, token, work, ca=ca)

    return list_entries


def _show_agent(
    name: NameArgument,
    *,
    resolved: Annotated[bool, typer.Option("--resolved", help="Merge its capabilities.")] = False,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
) -> None:
    from cli.views import show_json

    async def work(client: "CoordinatorClient") -> int:
        show_json(await client.agent(name, raw=not resolved))
        return 0

    call(url, token, work, ca=ca)


def _showing(registry: "Registry") -> Any:
    def show(name: NameArgument, url: Urls = None, token: TokenOption = "", ca: CaOption = "") -> None:
        from cli.views import show_json

        async def work(client: "CoordinatorClient") -> int:
            show_json(await client.entry(registry, name))
            return 0

        call(url, token, work, ca=ca)

    return show


def _putting(registry: "Registry") -> Any:
    def put(
        file: FileArgument, url: Urls = None, token: TokenOption = "", ca: CaOption = "", as_json: AsJson = False
    ) -> None:
        from cli.arguments import json_file
        from cli.views import show_json
        from runtime.terminal import say

        fields = json_file(str(file))

        async def work(client: "CoordinatorClient") -> int:
            entry = await client.put_entry(registry, fields)
            if as_json:
                show_json(entry)
            else:
                say(f"{registry}/{entry['id' if registry == 'mcp-servers' else 'name']} is written")
            return 0

        call(url, token, work, ca=ca)

    return put


def _deleting(registry: "Registry") -> Any:
    def delete(name: NameArgument, url: Urls = None, token: TokenOption = "", ca: CaOption = "") -> None:
        from runtime.terminal import say

        async def work(client: "CoordinatorClient") -> int:
            await client.delete_entry(registry, name)
            say(f"{registry}/{name} is deleted")
            return 0

        call(url, token, work, ca=ca)

    return delete
