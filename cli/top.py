"""Command `top`: a live view of queues, runners, rates and the coordinator's own health."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.client import Urls, call
from cli.tokens import CaOption, TokenOption

if TYPE_CHECKING:
    from cli.top_views import Reading
    from coordinator_client.client import CoordinatorClient

# Time over which rates are averaged.
RATE_MINUTES = 5


def top(
    *,
    every: Annotated[float, typer.Option(min=0.5, max=3600, metavar="SECONDS", help="Time between two frames.")] = 2,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end, as without a terminal.")] = False,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
) -> None:
    """Watch queues, runners and rates in the terminal until Ctrl-C.

    Rates are per minute, of the last five. A user sees its own runs; runners are listed for those who may list them.
    """
    import asyncio
    import sys

    from cli.top_views import frame
    from coordinator_client.errors import Refused, Unreachable
    from runtime.terminal import live, show, width

    async def work(client: "CoordinatorClient") -> int:
        reading = await _read(client)
        if once or not sys.stdout.isatty():
            show(frame(reading, client.url, width()))
            return 0
        with live() as draw:
            while True:
                draw(frame(reading, client.url, width()))
                await asyncio.sleep(every)
                try:
                    reading = await _read(client)
                except (Refused, Unreachable) as error:
                    # Go on with the last figures: this view is looked at when something is wrong.
                    reading.fault = str(error)

    call(url, token, work, ca=ca)


async def _read(client: "CoordinatorClient") -> "Reading":
    import asyncio
    from contextlib import suppress
    from datetime import UTC, datetime, timedelta

    from cli.top_views import Reading
    from coordinator_client.errors import Refused

    since = datetime.now(UTC) - timedelta(minutes=RATE_MINUTES + 1)
    health, counts, queues, submitted, ended, waits = await asyncio.gather(
        client.health(),
        client.run_counts(),
        client.queues(),
        client.series("submitted", since=since),
        client.series("ended", by="status", since=since),
        client.series("wait", since=since),
    )
    reading = Reading(health, counts, queues["queues"], submitted, ended, waits, minutes=RATE_MINUTES)
    # Users may list no runners.
    with suppress(Refused):
        reading.runners = await client.runners()
    return reading
