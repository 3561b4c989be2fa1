"""`coordinator watch`: print the feed, line by line.

Exit codes are those of cli/client.py; 0 when the reader closes the pipe (`coordinator watch | head -1`).
"""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.client import AsJson, Urls, call
from cli.tokens import CaOption, TokenOption
from runtime.terminal import complain

if TYPE_CHECKING:
    from coordinator_client.client import CoordinatorClient


def watch(
    *,
    session: Annotated[str, typer.Option(metavar="ID", help="Show only events of this session.")] = "",
    run: Annotated[str, typer.Option(metavar="ID", help="Show only events of this run.")] = "",
    types: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="Show only these types: session_created, session_updated, session_deleted, event, run_failed, "
            "run_updated, audit; the last two come only when named, audit only for admins.",
        ),
    ] = "",
    since: Annotated[
        str, typer.Option(metavar="CURSOR", help="Begin behind this cursor, the id of an item, instead of now.")
    ] = "",
    owner: Annotated[str, typer.Option(help="Show only events of this owner's sessions.")] = "",
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Follow the feed, one line for each event.

    Example: `coordinator watch --json | jq .event`. A lost connection is replaced at the next address, behind the last
    line: no event is missed or repeated. Ctrl-C ends it (exit code 130).
    """
    import asyncio
    import os
    import sys
    from contextlib import aclosing

    from cli.watch_views import Notices, leave_with_reader, show_item

    async def work(client: "CoordinatorClient") -> int:
        # Fail at once on a wrong address; after the first connection, retry until Ctrl-C.
        await client.health()
        leave_with_reader(asyncio.get_running_loop())
        notices = Notices(quiet=as_json)
        feed = client.feed(
            session_id=session or None,
            run_id=run or None,
            created_by=owner or None,
            types=[name.strip() for name in types.split(",") if name.strip()],
            after=since or None,
            on_connection=notices.connection,
        )
        async with aclosing(feed) as items:
            async for item in items:
                notices.item(item)
                show_item(item, as_json=as_json)
        return 0

    try:
        call(url, token, work, ca=ca)
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        complain(f"cannot write: {error}")
        sys.exit(1)
