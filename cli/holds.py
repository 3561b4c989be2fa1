"""Commands `hold`, `release` and `holds`: keep runs from being claimed."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.client import AsJson, Urls, call
from cli.tokens import CaOption, TokenOption

if TYPE_CHECKING:
    from coordinator_client.client import CoordinatorClient

Run = Annotated[str, typer.Argument(metavar="[RUN]", help="Id of a run, to hold it alone.")]


def hold(
    run: Run = "",
    *,
    name: Annotated[str, typer.Option(help="Name of a hold of several runs; replaces one of this name.")] = "",
    agent: Annotated[str, typer.Option(help="Hold the runs of this agent.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Hold runs that demand this tag; repeatable, all.")] = None,
    hostname: Annotated[str, typer.Option(help="Hold runs that demand this machine.")] = "",
    project_dir: Annotated[str, typer.Option(help="Hold runs that demand this project directory.")] = "",
    profile: Annotated[str, typer.Option(help="Hold runs that demand this executor profile.")] = "",
    everything: Annotated[bool, typer.Option("--everything", help="Hold all runs.")] = False,
    note: Annotated[str, typer.Option(help="Text that `why` shows; at most 200 characters.")] = "",
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Keep runs from being claimed: one RUN, or with --name several. What runners have in hand goes on.

    Examples: `coordinator hold run_0197f7a0 --note "wait for the data"`, `coordinator hold --name driver --tag gpu`
    """
    from cli import arguments, hold_views

    demands = arguments.demands(hostname, project_dir, profile, tag or [])
    selectors = sum([bool(agent), demands is not None, everything])
    if bool(run) == bool(name):
        raise typer.BadParameter("say what is to be held: RUN, or --name with --agent, --tag and the like")
    if selectors != (1 if name else 0):
        raise typer.BadParameter("--name needs one of --agent, demands (--tag, --hostname, ...) and --everything")

    async def work(client: "CoordinatorClient") -> int:
        if run:
            hold_views.show_run(await client.hold_run(run, note or None), as_json=as_json)
            return 0
        held = await client.set_hold(
            name, agent_name=agent or None, demands=demands, everything=everything, note=note or None
        )
        hold_views.show_holds([held], as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


def release(
    run: Run = "",
    *,
    hold: Annotated[str, typer.Option(metavar="NAME", help="Remove this hold of several runs.")] = "",
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Release a held RUN, or remove a hold of several runs (--hold); what is not held any more is ready at once."""
    from cli import hold_views

    if bool(run) == bool(hold):
        raise typer.BadParameter("say what is to be released: RUN, or --hold NAME")

    async def work(client: "CoordinatorClient") -> int:
        if run:
            hold_views.show_run(await client.release_run(run), as_json=as_json)
        else:
            hold_views.show_holds([await client.remove_hold(hold)], as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


def holds(*, url: Urls = None, token: TokenOption = "", ca: CaOption = "", as_json: AsJson = False) -> None:
    """List the holds of several runs (for administrators) and the newest of single runs."""
    from cli import hold_views

    async def work(client: "CoordinatorClient") -> int:
        hold_views.show_holds(await client.holds(), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)
