"""Command `failures`: failed runs by their error."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.bulk import Filters
from cli.client import AsJson, Urls, call
from cli.tokens import CaOption, TokenOption

if TYPE_CHECKING:
    from coordinator_client.client import CoordinatorClient


def failures(
    fingerprint: Annotated[
        str, typer.Argument(metavar="[FINGERPRINT]", help="Group to show, with its newest error and its runs.")
    ] = "",
    *,
    filters: Filters = None,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Group the newest failed runs, 2,000 at most, by their error without its numbers, ids and paths.

    Examples: `coordinator failures --filter agent_name=coder`, `coordinator failures 5f70bf18a0860070 --json`
    """
    from cli import arguments, failure_views

    asked = arguments.filters(filters or [])

    async def work(client: "CoordinatorClient") -> int:
        found = await client.failures(**asked)
        if not fingerprint:
            failure_views.show_groups(found, as_json=as_json)
            return 0
        return failure_views.show_group(found, fingerprint, as_json=as_json)

    call(url, token, work, ca=ca)
