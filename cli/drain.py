"""Command `drain`: take a runner out of service, or back into it."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.client import AsJson, Urls, call
from cli.tokens import CaOption, TokenOption

if TYPE_CHECKING:
    from coordinator_client.client import CoordinatorClient

# Time between two looks at the runs in hand.
LOOK_SECONDS = 1.0


def drain(
    runner: Annotated[str, typer.Argument(metavar="RUNNER", help="Id of a runner (`coordinator runners`).")],
    *,
    reason: Annotated[str, typer.Option(help="Text that `why` shows; at most 200 characters.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Let it take runs again.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until it has no run in hand.")] = False,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Give a runner no new run, while it finishes those it has. It drains on when it registers again.

    Exit code 1 with --wait: the drain was undone meanwhile.
    """
    from cli import views

    if undo and (wait or reason):
        raise typer.BadParameter("--undo goes with neither --wait nor --reason")

    async def work(client: "CoordinatorClient") -> int:
        if undo:
            shown = await client.undrain_runner(runner)
        else:
            shown = await client.drain_runner(runner, reason or None)
        views.show_drained(shown, as_json=as_json)
        return await _wait(client, runner) if wait else 0

    call(url, token, work, ca=ca)


async def _wait(client: "CoordinatorClient", runner_id: str) -> int:
    """Return once the runner has no run in hand or has left; write the number to stderr whenever it changes."""
    import asyncio

    from coordinator_client.errors import Refused
    from runtime.terminal import complain

    told = -1
    while True:
        try:
            found = await client.explain_runner(runner_id)
        except Refused as refused:
            if refused.status != 404:
                raise
            return 0
        in_hand = found["runs_in_hand"]
        if in_hand != told:
            told = in_hand
            complain("no run in hand" if not in_hand else f"{in_hand} {'run' if in_hand == 1 else 'runs'} in hand")
        if not in_hand:
            return 0
        if not any(reason["code"] == "draining" for reason in found["reasons"]):
            complain("the drain was undone")
            return 1
        await asyncio.sleep(LOOK_SECONDS)
