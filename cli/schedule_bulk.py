"""Command `schedules bulk`: pause, resume or delete many schedules."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client import AsJson, Urls, call
from cli.tokens import CaOption, TokenOption

if TYPE_CHECKING:
    from coordinator_client.client import CoordinatorClient


class Action(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    DELETE = "delete"


def bulk(
    action: Annotated[Action, typer.Argument(metavar="ACTION", help="pause, resume or delete.")],
    *,
    ids: Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="Schedule; repeatable.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Schedules whose ids begin like this; '' for all.")] = None,
    owner: Annotated[str, typer.Option(help="Schedules of this owner, for administrators.")] = "",
    note: Annotated[str, typer.Option(help="Reason of a pause that the schedules show.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the schedules.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Act without asking.")] = False,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Pause, resume or delete all schedules that match, but for those that are so already.

    Example: `coordinator schedules bulk pause --prefix nightly- --note "until the move is over"`
    """
    wanted: dict[str, Any] = {"note": note or None}
    if bool(ids) == (prefix is not None or bool(owner)):
        raise typer.BadParameter("name the schedules: by --id, or by --prefix and --owner")
    if ids:
        wanted["schedule_ids"] = ids
    else:
        wanted["filters"] = {"id_prefix": prefix or ""} | ({"owner": owner} if owner else {})
    if as_json and not (dry_run or yes):
        raise typer.BadParameter("JSON leaves nothing to ask: give --yes or --dry-run too", param_hint="--json")

    async def work(client: "CoordinatorClient") -> int:
        return await _act(client, action.value, wanted, dry_run=dry_run, yes=yes, as_json=as_json)

    call(url, token, work, ca=ca)


async def _act(
    client: "CoordinatorClient", action: str, wanted: dict[str, Any], *, dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Act on those of one dry run after the other; asks once."""
    from cli import schedule_views

    asked = yes
    while True:
        found = await client.change_schedules(action, **wanted, dry_run=True)
        names = found["schedule_ids"]
        if dry_run or not names:
            schedule_views.show_changed(found, as_json=as_json)
            return 0
        if not asked:
            schedule_views.show_changed(found, as_json=False)
            several = f"{len(names)} schedules{' and the others' if found['more'] else ''}"
            typer.confirm(f"{action} {several}?", abort=True, err=True)
            asked = True
        done = await client.change_schedules(action, schedule_ids=names, note=wanted["note"])
        schedule_views.show_changed(done, as_json=as_json)
        if not found["more"]:
            return 0
