"""Client commands: submit a run, list runs and runners, stop runs and sessions.

Exit codes: 0 success; 1 the run did not complete, or the coordinator refused; 2 invalid command line; 3 no coordinator
could be reached, or it cannot serve at the moment.
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
    typer.Option("--url", metavar="URL", help="Address of the coordinator; repeatable (COORDINATOR_URL)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end; exit code 1 unless completed.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Label; repeatable.")]
NoMatchTimeout = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="SECONDS",
        help="Fail the run after this time without a live runner that satisfies its demands (300).",
    ),
]
Anywhere = Annotated[bool, typer.Option("--anywhere", help="With --resume: ignore the session's machine and profile.")]
Params = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Parameter; KEY:=JSON for a value that is no text; repeatable."),
]
MaxAttempts = Annotated[int | None, typer.Option(min=1, max=100, help="Starts at most, if runners are lost (1).")]
Retry = Annotated[
    str,
    typer.Option(
        metavar="ATTEMPTS[,KEY=VALUE...]",
        help="Try reported failures again, such as 5,initial=1,factor=2,max=60,jitter=0.1,on=75|TimeoutError,not_on=2: "
        "pauses in seconds; on and not_on name exit codes and error classes.",
    ),
]
IdempotencyKey = Annotated[
    str, typer.Option(help="Idempotency key: repeats with one key submit once (default: a new key).")
]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="Number of entries at most.")]


def submit(
    prompt: Annotated[str, typer.Argument(help="Prompt of the run; `-` reads it from stdin.")] = "",
    *,
    param: Params = None,
    tag: Annotated[list[str] | None, typer.Option(help="Tag that the runner must have; repeatable.")] = None,
    session: Annotated[str, typer.Option(help="Id of the new session.")] = "",
    resume: Annotated[str, typer.Option(metavar="SESSION", help="Session to resume.")] = "",
    agent: Annotated[str, typer.Option(help="Agent name.")] = "",
    label: Labels = None,
    priority: Annotated[int | None, typer.Option(min=-100, max=100, help="Priority; higher goes first (0).")] = None,
    delay: Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="Delay of the earliest start.")] = None,
    max_attempts: MaxAttempts = None,
    retry: Retry = "",
    timeout: Annotated[int | None, typer.Option(min=1, metavar="SECONDS", help="Time limit, from the start.")] = None,
    no_match_timeout: NoMatchTimeout = None,
    anywhere: Anywhere = False,
    hostname: Annotated[str, typer.Option(help="Machine of the runner; overrides the session's with --resume.")] = "",
    project_dir: Annotated[str, typer.Option(help="Project directory of the runner.")] = "",
    profile: Annotated[str, typer.Option(help="Executor profile of the runner.")] = "",
    key: IdempotencyKey = "",
    wait: Wait = False,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Submit a run.

    Example: `coordinator submit "count the stars" --tag telescope --wait`
    """
    from cli import arguments, views
    from coordinator_client.requests import RunRequest

    _check_session(session, resume, anywhere=anywhere)
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
        retry=arguments.retry(retry),
        run_timeout_seconds=timeout,
        no_match_timeout_seconds=no_match_timeout,
        labels=arguments.pairs(label or []),
    )

    async def work(client: "CoordinatorClient") -> int:
        submitted = await client.submit(request, idempotency_key=key or None)
        if wait:
            return await follow(client, submitted["run_id"], as_json=as_json)
        views.show_submitted(submitted, as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


def _check_session(session: str, resume: str, *, anywhere: bool) -> None:
    if session and resume:
        raise typer.BadParameter("a session is either new (--session) or resumed (--resume)")
    if anywhere and not resume:
        raise typer.BadParameter("--anywhere needs a session to resume (--resume)")


def runs(
    *,
    status: Annotated[str, typer.Option(help="List only runs in this status.")] = "",
    session: Annotated[str, typer.Option(help="List only runs of this session.")] = "",
    runner: Annotated[str, typer.Option(help="List only runs of this runner.")] = "",
    agent: Annotated[str, typer.Option(help="List only runs of this agent.")] = "",
    label: Labels = None,
    limit: Limit = 20,
    cursor: Annotated[str, typer.Option(help="Cursor that the previous page ended with.")] = "",
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
    run_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the run.")],
    wait: Wait = False,
    log: Annotated[bool, typer.Option("--log", help="Show its output too.")] = False,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Show a run, with its result if it has one."""

    async def work(client: "CoordinatorClient") -> int:
        return await follow(client, run_id, wait=wait, log=log, as_json=as_json)

    call(url, token, work, ca=ca)


def runners(url: Urls = None, token: TokenOption = "", ca: CaOption = "", as_json: AsJson = False) -> None:
    """List the registered runners."""
    from cli import views

    async def work(client: "CoordinatorClient") -> int:
        views.show_runners(await client.runners(), as_json=as_json)
        return 0

    call(url, token, work, ca=ca)


def stop(
    target: Annotated[str, typer.Argument(metavar="ID", help="Id of a run, or of a session with all its runs.")],
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    as_json: AsJson = False,
) -> None:
    """Stop a run or a session."""
    from cli import views
    from coordinator_client.errors import Refused

    async def work(client: "CoordinatorClient") -> int:
        # A client may give its session an id that looks like a run's.
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


async def follow(
    client: "CoordinatorClient", run_id: str, *, wait: bool = True, log: bool = False, as_json: bool = False
) -> int:
    from cli import views
    from coordinator_client.errors import Refused

    found = await (client.wait_for_run(run_id) if wait else client.run(run_id))
    result = None
    if found["status"] == "completed":
        try:
            result = await client.run_result(run_id)
        except Refused as refused:  # no result is kept
            if refused.status != 404:
                raise
    events = await client.session_events(found["session_id"], run_id=run_id) if log else None
    views.show_run(found, result, events, as_json=as_json)
    return 1 if wait and found["status"] != "completed" else 0


def call(
    urls: list[str] | None, token: str, work: "Callable[[CoordinatorClient], Awaitable[int]]", *, ca: str = ""
) -> None:
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
