"""Commands `replay` and `bulk`: submit runs again, and act on many runs at once."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client import AsJson, IdempotencyKey, Urls, Wait, call, follow
from cli.tokens import CaOption, TokenOption

if TYPE_CHECKING:
    from coordinator_client.client import CoordinatorClient

bulk = typer.Typer(
    help="Act on many runs at once. The filters are those of GET /runs: status, label, agent_name, created_after, ...",
    no_args_is_help=True,
)

Filters = Annotated[
    list[str] | None,
    typer.Option("--filter", metavar="NAME=VALUE", help="Filter, such as status=failed or label=team=sky; repeatable."),
]
RunIds = Annotated[list[str] | None, typer.Option("--run", metavar="ID", help="Run in place of filters; repeatable.")]
Limit = Annotated[int | None, typer.Option(min=1, max=50_000, help="Most runs to act on (50,000).")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show the runs that match.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Act without asking.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Field of the submission to replace; FIELD:=JSON for a value that is no text; repeatable.",
    ),
]
# Between two looks at the progress.
LOOK_SECONDS = 0.5


def replay(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Run that has ended.")],
    *,
    changes: Changes = None,
    key: IdempotencyKey = "",
    wait: Wait = False,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Submit a run again, in a new session.

    Example: `coordinator replay run_0197 --set priority:=10 --set 'parameters:={"prompt": "count again"}'`
    """
    from cli import arguments, views

    wanted = arguments.changes(changes or [])

    async def work(client: "CoordinatorClient") -> int:
        submitted = await client.replay(run_id, wanted, idempotency_key=key or None)
        if wait:
            return await follow(client, submitted["run_id"], as_json=as_json)
        views.show_submitted(submitted, as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@bulk.command("stop")
def stop(
    *,
    filters: Filters = None,
    run_ids: RunIds = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Stop all runs that match."""
    wanted = _wanted("stop", filters, run_ids, limit)
    call(url, token, lambda client: _act(client, wanted, dry_run=dry_run, yes=yes, as_json=as_json), ca=ca)


@bulk.command("delete")
def delete(
    *,
    filters: Filters = None,
    run_ids: RunIds = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Delete the sessions of all runs that match. Sessions with an unfinished run stay."""
    wanted = _wanted("delete", filters, run_ids, limit)
    call(url, token, lambda client: _act(client, wanted, dry_run=dry_run, yes=yes, as_json=as_json), ca=ca)


@bulk.command("replay")
def replay_all(
    *,
    filters: Filters = None,
    run_ids: RunIds = None,
    changes: Changes = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Submit all ended runs that match again, each in a new session."""
    from cli import arguments

    wanted = _wanted("replay", filters, run_ids, limit) | {"changes": arguments.changes(changes or [])}
    call(url, token, lambda client: _act(client, wanted, dry_run=dry_run, yes=yes, as_json=as_json), ca=ca)


@bulk.command("hold")
def hold_all(
    *,
    filters: Filters = None,
    run_ids: RunIds = None,
    limit: Limit = None,
    note: Annotated[str, typer.Option(help="Text that `why` shows; at most 200 characters.")] = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Hold all unfinished runs that match, each by itself. What runners have in hand goes on."""
    wanted = _wanted("hold", filters, run_ids, limit) | {"note": note or None}
    call(url, token, lambda client: _act(client, wanted, dry_run=dry_run, yes=yes, as_json=as_json), ca=ca)


@bulk.command("release")
def release_all(
    *,
    filters: Filters = None,
    run_ids: RunIds = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Release all runs that match from holds of single runs, such as --filter held=true."""
    wanted = _wanted("release", filters, run_ids, limit)
    call(url, token, lambda client: _act(client, wanted, dry_run=dry_run, yes=yes, as_json=as_json), ca=ca)


@bulk.command("list")
def show_all(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Number of entries at most.")] = 20,
    cursor: Annotated[str, typer.Option(help="Cursor that the previous page ended with.")] = "",
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """List bulks, newest first."""
    from cli import bulk_views

    async def work(client: "CoordinatorClient") -> int:
        bulk_views.show_bulks(await client.bulks(limit=limit, cursor=cursor or None), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@bulk.command("show")
def show(
    bulk_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the bulk.")],
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Show a bulk: what it changed, skipped and could not do."""
    from cli import bulk_views

    async def work(client: "CoordinatorClient") -> int:
        bulk_views.show_bulk(await client.bulk(bulk_id), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@bulk.command("halt")
def halt(
    bulk_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the bulk.")],
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Stop a bulk before its end. What it has done stays."""
    from cli import bulk_views

    async def work(client: "CoordinatorClient") -> int:
        bulk_views.show_bulk(await client.stop_bulk(bulk_id), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


def _wanted(action: str, filters: list[str] | None, run_ids: list[str] | None, limit: int | None) -> dict[str, Any]:
    from cli import arguments

    if bool(filters) == bool(run_ids):
        raise typer.BadParameter("name the runs: by --filter NAME=VALUE, or by --run ID", param_hint="--filter")
    if run_ids:
        return {"action": action, "run_ids": run_ids, "limit": limit}
    return {"action": action, "filters": arguments.filters(filters or []), "limit": limit}


async def _act(client: "CoordinatorClient", wanted: dict[str, Any], *, dry_run: bool, yes: bool, as_json: bool) -> int:
    import asyncio

    from cli import bulk_views

    if as_json and not (dry_run or yes):
        raise typer.BadParameter("JSON leaves nothing to ask: give --yes or --dry-run too", param_hint="--json")
    preview = await client.preview_bulk(**wanted)
    if dry_run or not preview["matches"]:
        bulk_views.show_preview(wanted["action"], preview, as_json=as_json)
        return 0
    if not yes:
        bulk_views.show_preview(wanted["action"], preview, as_json=False)
        typer.confirm(bulk_views.question(wanted["action"], preview["matches"]), abort=True, err=True)
    bulk_id = await client.start_bulk(preview["token"])
    with bulk_views.progress(quiet=as_json) as draw:
        while (state := await client.bulk(bulk_id))["state"] == "running":
            draw(state)
            await asyncio.sleep(LOOK_SECONDS)
    bulk_views.show_bulk(state, as_json=as_json)
    return 0 if state["state"] == "completed" and not state["errors"] else 1
