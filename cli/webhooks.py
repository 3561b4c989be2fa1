"""Commands `webhooks`: receivers of messages about ends of runs and sessions."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client import AsJson, Limit, Urls, call
from cli.tokens import CaOption, TokenOption

if TYPE_CHECKING:
    from coordinator_client.client import CoordinatorClient

webhooks = typer.Typer(
    help="Webhooks: addresses that are told when runs and sessions end. See docs/webhooks.md.", no_args_is_help=True
)

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the webhook.")]
Cursor = Annotated[str, typer.Option(help="Cursor that the previous page ended with.")]
FIELDS = ("agent_name", "description", "disabled", "events", "labels", "url")


@webhooks.command("list")
def show_all(
    *,
    limit: Limit = 100,
    cursor: Cursor = "",
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """List webhooks by their ids."""
    from cli import webhook_views

    async def work(client: "CoordinatorClient") -> int:
        webhook_views.show_webhooks(await client.webhooks(limit=limit, cursor=cursor or None), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@webhooks.command("show")
def show(
    webhook_id: Id, *, url: Urls = None, token: TokenOption = "", ca: CaOption = "", as_json: AsJson = False
) -> None:
    """Show a webhook, without its secrets."""
    from cli import webhook_views

    async def work(client: "CoordinatorClient") -> int:
        webhook_views.show_webhook(await client.webhook(webhook_id), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@webhooks.command("put")
def put(
    webhook_id: Id,
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON file with `url`, `events`, ...; `-` reads stdin.")],
    *,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Create a webhook and print its secret once, or replace the one with this id.

    Example: `echo '{"url": "https://example.com/hook", "events": ["run.failed"]}' | coordinator webhooks put ci -`
    """
    from cli import webhook_views

    wanted = _read(file)

    async def work(client: "CoordinatorClient") -> int:
        webhook_views.show_put(await client.put_webhook(webhook_id, **wanted), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@webhooks.command("delete")
def delete(
    webhook_id: Id, *, url: Urls = None, token: TokenOption = "", ca: CaOption = "", as_json: AsJson = False
) -> None:
    """Delete a webhook with its secrets and messages."""
    from cli import webhook_views

    async def work(client: "CoordinatorClient") -> int:
        webhook_views.show_done(await client.delete_webhook(webhook_id), "deleted", as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@webhooks.command("rotate")
def rotate(
    webhook_id: Id, *, url: Urls = None, token: TokenOption = "", ca: CaOption = "", as_json: AsJson = False
) -> None:
    """Give a webhook a new secret and print it once. The former one signs too for 24 hours."""
    from cli import webhook_views

    async def work(client: "CoordinatorClient") -> int:
        webhook_views.show_put(await client.rotate_webhook_secret(webhook_id), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@webhooks.command("test")
def send_test(
    webhook_id: Id, *, url: Urls = None, token: TokenOption = "", ca: CaOption = "", as_json: AsJson = False
) -> None:
    """Send a test message; `deliveries` shows what became of it."""
    from cli import webhook_views

    async def work(client: "CoordinatorClient") -> int:
        webhook_views.show_sent(await client.test_webhook(webhook_id), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@webhooks.command("deliveries")
def deliveries(
    webhook_id: Id,
    *,
    state: Annotated[str, typer.Option(help="Only pending, delivered or failed messages.")] = "",
    limit: Limit = 20,
    cursor: Cursor = "",
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """List the messages of a webhook, newest first, with their answers."""
    from cli import webhook_views

    async def work(client: "CoordinatorClient") -> int:
        page = await client.webhook_deliveries(webhook_id, state=state or None, limit=limit, cursor=cursor or None)
        webhook_views.show_deliveries(page, as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@webhooks.command("replay")
def replay(
    webhook_id: Id,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="Id of the message, as `deliveries` shows it.")],
    *,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Send a message again, with the same id and body; one that waits is sent now."""
    from cli import webhook_views

    async def work(client: "CoordinatorClient") -> int:
        webhook_views.show_sent(await client.replay_webhook_delivery(webhook_id, event), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


def _read(file: str) -> dict[str, Any]:
    """Return the arguments of `put_webhook`; the coordinator checks their values."""
    import json
    import sys
    from pathlib import Path

    try:
        given = json.loads(sys.stdin.read() if file == "-" else Path(file).read_text())
    except OSError as error:
        raise typer.BadParameter(f"cannot read {file}: {error.strerror}", param_hint="FILE") from None
    except ValueError as error:
        raise typer.BadParameter(f"{file} is no JSON: {error}", param_hint="FILE") from None
    if not isinstance(given, dict) or not {"url", "events"} <= given.keys() or not given.keys() <= set(FIELDS):
        raise typer.BadParameter(
            f"should be an object with url and events; its fields are {', '.join(FIELDS)}", param_hint="FILE"
        )
    if not isinstance(given["events"], list):
        raise typer.BadParameter("events should be a list", param_hint="FILE")
    return given
