"""The command that follows the feed: what happens, line by line, for as long as somebody reads.

Exit codes are those of cli/client.py; a reader that goes away (`coordinator watch | head -1`) ends it with 0.
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
    session: Annotated[str, typer.Option(metavar="ID", help="Only what concerns this session.")] = "",
    run: Annotated[str, typer.Option(metavar="ID", help="Only what concerns this run.")] = "",
    types: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="Only these of session_created, session_updated, session_deleted, event, run_failed, run_updated; "
            "the last one comes only when it is named, and so does audit, which is for admins.",
        ),
    ] = "",
    since: Annotated[str, typer.Option(metavar="CURSOR", help="Begin behind this item's id instead of now.")] = "",
    owner: Annotated[str, typer.Option(help="Only sessions of this owner.")] = "",
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Follow what happens, one line each: `coordinator watch --session mine`, `coordinator watch --json | jq .event`.

    A lost connection is replaced at the next address, behind the last line: none is missed, none comes twice. It ends
    with Ctrl-C (exit code 130).
    """
    import asyncio
    import os
    import sys
    from contextlib import aclosing

    from cli.watch_views import Notices, leave_with_reader, show_item

    async def work(client: "CoordinatorClient") -> int:
        # A wrong address is told at once; once it was right, only Ctrl-C ends the trying.
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
        # The interpreter flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        complain(f"cannot write: {error}")
        sys.exit(1)
