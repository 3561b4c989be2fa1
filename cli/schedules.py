"""Commands `schedules`: show, put and control runs that are submitted at stated times."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import schedule_bulk
from cli.client import AsJson, Urls, call
from cli.tokens import CaOption, TokenOption

if TYPE_CHECKING:
    from coordinator_client.client import CoordinatorClient

schedules = typer.Typer(help="Submit runs at stated times: cron, intervals, single times.", no_args_is_help=True)
schedules.command("bulk")(schedule_bulk.bulk)

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the schedule.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="Number of entries at most.")]
Cursor = Annotated[str, typer.Option(help="Cursor that the previous page ended with.")]


@schedules.command("list")
def show_all(
    *,
    limit: Limit = 50,
    cursor: Cursor = "",
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """List schedules, newest first."""
    from cli import schedule_views

    async def work(client: "CoordinatorClient") -> int:
        schedule_views.show_schedules(await client.schedules(limit=limit, cursor=cursor or None), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@schedules.command("show")
def show(
    schedule_id: Id,
    *,
    fires: Annotated[int, typer.Option(min=0, max=1000, help="Number of decisions to show.")] = 10,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Show a schedule, and what was decided on its newest times."""
    from cli import schedule_views

    async def work(client: "CoordinatorClient") -> int:
        found = await client.schedule(schedule_id)
        decisions = await client.fires(schedule_id, limit=fires) if fires else {"fires": []}
        schedule_views.show_schedule(found, decisions["fires"], as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@schedules.command("put")
def put(
    schedule_id: Id,
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON file with the schedule; `-`: stdin.")],
    *,
    expect_version: Annotated[
        int | None, typer.Option(min=0, help="Refuse unless the schedule has this version; 0: none yet.")
    ] = None,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Create a schedule, or replace it.

    Example of a file: `{"spec": {"cron": ["0 9 * * MON-FRI"]}, "timezone": "Europe/Berlin", "run": {"type":
    "start_session", "parameters": {"prompt": "Write the morning report"}}}`
    """
    from cli import schedule_views
    from cli.arguments import json_file

    wanted = json_file(file)
    if expect_version is not None:
        wanted["expect_version"] = expect_version

    async def work(client: "CoordinatorClient") -> int:
        schedule_views.show_schedule(await client.put_schedule(schedule_id, wanted), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@schedules.command("pause")
def pause(
    schedule_id: Id,
    *,
    note: Annotated[str, typer.Option(help="Reason that the schedule shows.")] = "",
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Pause a schedule. The times of the pause run only if they are backfilled."""
    from cli import schedule_views

    async def work(client: "CoordinatorClient") -> int:
        schedule_views.show_schedule(await client.pause_schedule(schedule_id, note or None), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@schedules.command("resume")
def resume(
    schedule_id: Id,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """End the pause of a schedule: its times count from now on."""
    from cli import schedule_views

    async def work(client: "CoordinatorClient") -> int:
        schedule_views.show_schedule(await client.resume_schedule(schedule_id), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@schedules.command("trigger")
def trigger(
    schedule_id: Id,
    *,
    overlap: Annotated[
        str, typer.Option(help="skip, buffer_one, buffer_all, cancel_running or allow (the schedule's own).")
    ] = "",
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Submit the run of a schedule now, paused or not, by its overlap policy. Exit code 1: it was not submitted."""
    from cli import schedule_views

    async def work(client: "CoordinatorClient") -> int:
        fire = await client.trigger_schedule(schedule_id, overlap=overlap or None)
        schedule_views.show_fire(fire, as_json=as_json)
        return 0 if fire["outcome"] in {"submitted", "buffered"} else 1

    call(url, token, work, ca=ca)


@schedules.command("next")
def show_next(
    schedule_id: Id,
    *,
    count: Annotated[int, typer.Option(min=1, max=100, help="Number of times.")] = 10,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Show the next times of a schedule, in its time zone and in UTC."""
    from cli import schedule_views

    async def work(client: "CoordinatorClient") -> int:
        schedule_views.show_times(await client.next_times(schedule_id, count=count), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@schedules.command("backfill")
def backfill(
    schedule_id: Id,
    *,
    begin: Annotated[datetime, typer.Option("--from", help="First moment, local time without an offset.")],
    end: Annotated[datetime, typer.Option("--to", help="Moment behind the last.")],
    at_once: Annotated[bool, typer.Option("--at-once", help="Do not wait for the end of earlier runs.")] = False,
    most: Annotated[int, typer.Option(min=1, max=1000, help="Most times, the oldest ones.")] = 1000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the times.")] = False,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Submit the times of the past that have no run."""
    from cli import schedule_views

    wanted: dict[str, Any] = {"overlap": "allow" if at_once else "buffer_all", "most": most, "dry_run": dry_run}

    async def work(client: "CoordinatorClient") -> int:
        schedule_views.show_backfill(await client.backfill_schedule(schedule_id, begin, end, **wanted), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


@schedules.command("delete")
def delete(
    schedule_id: Id,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
) -> None:
    """Delete a schedule, and the times that wait. Its runs stay."""
    from runtime.terminal import printable, say

    if not yes:
        typer.confirm(f"delete schedule {printable(schedule_id)}?", abort=True, err=True)

    async def work(client: "CoordinatorClient") -> int:
        await client.delete_schedule(schedule_id)
        say("deleted")
        return 0

    call(url, token, work, ca=ca)
