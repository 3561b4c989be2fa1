import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.tokens import CaOption, TokenOption, find_token, warn_of_shown_token
from runtime.terminal import complain

if TYPE_CHECKING:
    from runtime.settings import Settings

Urls = Annotated[
    list[str] | None,
    typer.Option("--url", metavar="URL", help="Address of the coordinator; repeatable (COORDINATOR_URL)."),
]
MatchingTags = Annotated[
    bool, typer.Option("--require-matching-tags", help="Take only runs that demand one of the tags.")
]
ExecutorType = Annotated[str, typer.Option("--type", help="Executor type; runs demand `autonomous`.")]
Grace = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="Time that runs have after SIGTERM (no limit).")
]
StopGrace = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="Time between SIGTERM and SIGKILL of a stopped run.")
]
MaxOutput = Annotated[
    int | None, typer.Option(min=0, metavar="BYTES", help="Output of a run that is sent, at most (no limit).")
]
TokenFd = Annotated[int | None, typer.Option(hidden=True, help="Descriptor to read the token from.")]


def runner(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="Command to start for each run.")],
    *,
    url: Urls = None,
    token: TokenOption = "",
    ca: CaOption = "",
    name: Annotated[str, typer.Option(help="Executor profile (default: the command's name and a number).")] = "",
    tags: Annotated[str, typer.Option(metavar="A,B", help="Tags of this runner, comma-separated.")] = "",
    require_matching_tags: MatchingTags = False,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Runs at a time.")] = 1,
    executor_type: ExecutorType = "autonomous",
    project_dir: Annotated[str, typer.Option(help="Directory in which the command starts (default: here).")] = "",
    hostname: Annotated[str, typer.Option(help="Name of this machine (default: its own).")] = "",
    grace: Grace = None,
    stop_grace: StopGrace = 5.0,
    max_output: MaxOutput = None,
    token_fd: TokenFd = None,
) -> None:
    """Execute COMMAND for each run until SIGTERM.

    COMMAND gets the run as JSON on stdin, and COORDINATOR_RUN_ID, COORDINATOR_RUN_SESSION_ID and
    COORDINATOR_RUN_ATTEMPT in its environment. Its lines become events, the file COORDINATOR_RUN_RESULT_FILE or else a
    JSON object in its last line the result. Exit code 0 completes the run, any other fails it. SIGTERM finishes the
    runs in hand; a second one ends them, and they go on elsewhere if attempts are left.
    """
    import asyncio

    from coordinator_client.runner_loop.registration import RegistrationRefused
    from runner.runner import RunnerOptions, run_runner
    from runner.slots import Slot
    from runtime.logs import configure_logs
    from runtime.settings import load_settings

    settings = load_settings()
    token = _hidden_token(token, token_fd, settings, command)
    with ExitStack() as stack:
        try:
            slot = None if name else stack.enter_context(Slot(command))
            options = RunnerOptions(
                urls=url or settings.url,
                token=find_token(token, url or settings.url, settings),
                ca_file=ca or settings.ca_file,
                command=command,
                profile=slot.profile if slot else name,
                slot=slot,
                hostname=hostname or socket.gethostname(),
                project_dir=str(_directory(project_dir)),
                executor_type=executor_type,
                tags=tuple(dict.fromkeys(tag for tag in map(str.strip, tags.split(",")) if tag)),
                require_matching_tags=require_matching_tags,
                concurrency=concurrency,
                grace_seconds=grace,
                stop_grace_seconds=stop_grace,
                most_output_bytes=max_output,
            )
            configure_logs(settings, process=options.profile)
            asyncio.run(run_runner(options))
        except (OSError, ValueError, RegistrationRefused) as error:
            complain(error)
            sys.exit(1 if isinstance(error, RegistrationRefused) else 2)


def _hidden_token(given: str, token_fd: int | None, settings: "Settings", command: list[str]) -> str:
    from cli.token_hiding import read_token_fd, start_anew_without

    if token_fd is not None:
        return read_token_fd(token_fd)
    if given or settings.token:
        if given:
            warn_of_shown_token()
        try:
            start_anew_without(given or settings.token, command)
        except (OSError, ValueError) as error:
            complain(error)
            sys.exit(2)
    return ""


def _directory(name: str) -> Path:
    directory = Path(name or ".").resolve()
    if not directory.is_dir():
        raise typer.BadParameter(f"{directory} is no directory", param_hint="--project-dir")
    return directory
