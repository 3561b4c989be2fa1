"""Command `why`: explain why a run does not run, or why a runner gets no run."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.client import AsJson, Urls, call
from cli.tokens import CaOption, TokenOption

if TYPE_CHECKING:
    from coordinator_client.client import CoordinatorClient


def why(
    target: Annotated[str, typer.Argument(metavar="ID", help="Id of a run or of a runner.")],
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Explain why a run does not run, or why a runner gets no run."""
    from cli.why_views import show_run_explanation, show_runner_explanation

    async def work(client: "CoordinatorClient") -> int:
        if target.startswith("lnch_"):
            show_runner_explanation(await client.explain_runner(target), as_json=as_json)
        else:
            show_run_explanation(await client.explain_run(target), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)
