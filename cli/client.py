"""The client's commands: submit a run, look at runs and runners, stop what runs.

Exit codes: 0 it went well; 1 the run did not complete, or the coordinator refused; 2 the command line is wrong; 3 no
coordinator could be reached, or it cannot serve at the moment.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.tokens import CaOption, TokenOption, warn_of_shown_token
from runtime.terminal import complain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from coordinator_client.client import CoordinatorClient

Urls = Annotated[
    list[str] | None,
    typer.Option("--url", metavar="URL", help="The coordinator; repeat it for several addresses (COORDINATOR_URL)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for machines.")]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Wait for its end; exit code 1 unless it completed.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A mark; repeatable.")]
NoMatchTimeout = Annotated[
    int | None,
    typer.Option(min=1, metavar="SECONDS", help="Fails when no live runner satisfies its demands for so long (300)."),
]
Anywhere = Annotated[
    bool, typer.Option("--anywhere", help="With --resume: on any machine and profile, wherever the session lives.")
]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")]


def submit(
    prompt: Annotated[str, typer.Argument(help="What is to be done; `-` reads it from stdin.")] = "",
    *,
    param: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A parameter; KEY:=JSON for what is no text.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag its runner must have; repeatable.")] = None,
    session: Annotated[str, typer.Option(help="Id for the new session.")] = "",
    resume: Annotated[str, typer.Option(metavar="SESSION", help="Resume this session.")] = "",
    agent: Annotated[str, typer.Option(help="Agent name.")] = "",
    label: Labels = None,
    priority: Annotated[int | None, typer.Option(min=-100, max=100, help="Higher goes first (0).")] = None,
    delay: Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="Not before so long from now.")] = None,
    max_attempts: Annotated[int | None, typer.Option(min=1, max=100, help="Starts if runners get lost (1).")] = None,
    timeout: Annotated[int | None, typer.Option(min=1, metavar="SECONDS", help="Longest life from its start.")] = None,
    no_match_timeout: NoMatchTimeout = None,
    anywhere: Anywhere = False,
    hostname: Annotated[str, typer.Option(help="Only on this machine; wins over the session's of --resume.")] = "",
    project_dir: Annotated[str, typer.Option(help="Only in this directory of it.")] = "",
    profile: Annotated[str, typer.Option(help="Only by this executor profile.")] = "",
    key: Annotated[str, typer.Option(help="Idempotency key: the same one submits once (a new one).")] = "",
    wait: Wait = False,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Submit a run: `coordinator submit "count the stars" --tag telescope --wait`."""
    from cli import arguments, views
    from coordinator_client.types import RunRequest

    if session and resume:
        raise typer.BadParameter("a session is either new (--session) or resumed (--resume)")
    if anywhere and not resume:
        raise typer.BadParameter("--anywhere needs a session to resume (--resume)")
    request = RunRequest(
        type="resume_session" if resume else "start_session",
        session_id=resume or session or None,
        parameters=arguments.parameters(prompt, param or []),
        agent_name=agent or None,
        additional_demands=arguments.demands(hostname, project_dir, profile, tag or []),
        affinity=False if anywhere else None,
        priority=priority,
        not_before=delay,
        max_attempts=max_attempts,
        run_timeout_seconds=timeout,
        no_match_timeout_seconds=no_match_timeout,
        labels=arguments.pairs(label or []),
    )

    async def work(client: "CoordinatorClient") -> int:
        submitted = await client.submit(request, idempotency_key=key or None)
        if wait:
            return await _follow(client, submitted["run_id"], as_json=as_json)
        views.show_submitted(submitted, as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


def runs(
    *,
    status: Annotated[str, typer.Option(help="Only those in this status.")] = "",
    session: Annotated[str, typer.Option(help="Only those of this session.")] = "",
    runner: Annotated[str, typer.Option(help="Only those of this runner.")] = "",
    agent: Annotated[str, typer.Option(help="Only those of this agent.")] = "",
    label: Labels = None,
    limit: Limit = 20,
    cursor: Annotated[str, typer.Option(help="Go on where a former list ended.")] = "",
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    from cli import arguments, views

    labels = arguments.pairs(label or [])

    async def work(client: "CoordinatorClient") -> int:
        page = await client.runs(
            status=status or None,
            session_id=session or None,
            runner_id=runner or None,
            agent_name=agent or None,
            labels=labels,
            limit=limit,
            cursor=cursor or None,
        )
        views.show_runs(page, as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


def run(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="The run.")],
    wait: Wait = False,
    log: Annotated[bool, typer.Option("--log", help="With what it said.")] = False,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Show a run, with its result when it has one."""

    async def work(client: "CoordinatorClient") -> int:
        return await _follow(client, run_id, wait=wait, log=log, as_json=as_json)

    call(url, token, work, ca=ca)


def runners(url: Urls = None, token: TokenOption = "", ca: CaOption = "", as_json: AsJson = False) -> None:
    """List the registered runners."""
    from cli import views

    async def work(client: "CoordinatorClient") -> int:
        views.show_runners(await client.runners(), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


def stop(
    target: Annotated[str, typer.Argument(metavar="ID", help="A run, or a session with all its runs.")],
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Stop a run or a session."""
    from cli import views
    from coordinator_client.errors import Refused

    async def work(client: "CoordinatorClient") -> int:
        # What a client calls its session may well look like a run's id.
        first, second = (
            (client.stop_run, client.stop_session)
            if target.startswith("run_")
            else (client.stop_session, client.stop_run)
        )
        try:
            answer = await first(target)
        except Refused as refused:
            if refused.status != 404:
                raise
            answer = await second(target)
        views.show_stopped(answer, as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


async def _follow(
    client: "CoordinatorClient", run_id: str, *, wait: bool = True, log: bool = False, as_json: bool = False
) -> int:
    """Show the run, at its end if `wait`; the exit code."""
    from cli import views
    from coordinator_client.errors import Refused

    found = await (client.wait_for_run(run_id) if wait else client.run(run_id))
    result = None
    if found["status"] == "completed":
        try:
            result = await client.run_result(run_id)
        except Refused as refused:  # it has none
            if refused.status != 404:
                raise
    events = await client.session_events(found["session_id"], run_id=run_id) if log else None
    views.show_run(found, result, events, as_json=as_json)
    return 1 if wait and found["status"] != "completed" else 0


def call(
    urls: list[str] | None, token: str, work: "Callable[[CoordinatorClient], Awaitable[int]]", *, ca: str = ""
) -> None:
    """Do the work with a client of the coordinator and end with its exit code; what went wrong is said in one line."""
    import asyncio
    import sys

    from cli.tokens import find_token
    from coordinator_client.client import CoordinatorClient
    from coordinator_client.errors import Refused, Unreachable
    from runtime.settings import load_settings

    if token:
        warn_of_shown_token()
    settings = load_settings()
    addresses = urls or settings.url

    async def connected() -> int:
        shown = find_token(token, addresses, settings)
        async with CoordinatorClient(
            addresses, token=shown, ca_file=ca or settings.ca_file, patience_seconds=2
        ) as client:
            return await work(client)

    def end(code: int, message: Any) -> None:
        complain(message)
        sys.exit(code)

    try:
        code = asyncio.run(connected())
    except Unreachable as error:
        end(3, f"cannot reach {error}")
    except Refused as error:
        end(3 if error.status >= 500 else 1, error)
    except ValueError as error:
        end(2, error)
    except KeyboardInterrupt:
        sys.exit(130)
    else:
        sys.exit(code)
