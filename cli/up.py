from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.database import data_directory
from runtime.terminal import complain


def up(
    *,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help="Port of the first web replica; the others take the next ports."),
    ] = None,
    web: Annotated[int, typer.Option(min=1, max=64, help="Number of web replicas.")] = 2,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Number of worker processes.")] = 2,
    data: Annotated[
        Path | None, typer.Option(file_okay=False, help="Directory for databases, logs and pid files.")
    ] = None,
    lb: Annotated[
        bool, typer.Option("--lb/--no-lb", help="Start a load balancer (Caddy) in front of the replicas.")
    ] = False,
    lb_port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the load balancer.")] = 8764,
    auth: Annotated[
        bool,
        typer.Option("--auth", help="Require a key of every caller; create one for this machine and print it once."),
    ] = False,
    runner: Annotated[bool, typer.Option("--runner/--no-runner", help="Start a demo runner.")] = True,
    console: Annotated[bool, typer.Option(help="In a checkout, build the console once everything serves.")] = True,
    log_format: Annotated[Literal["console", "json"] | None, typer.Option(help="Format of log lines.")] = None,
) -> None:
    """Start Postgres, Redis and all processes.

    Uses DATABASE_URL and REDIS_URL instead where they are set, migrates the schema, and serves until Ctrl-C. SIGHUP or
    scripts/rolling_deploy replaces web and worker processes one by one, without a failed request.
    """
    import asyncio

    from devserver.serving import Wanted, serve
    from devserver.supervisor import CannotServe
    from runtime.processes import exit_now
    from runtime.settings import load_settings

    settings = load_settings()
    wanted = Wanted(
        port=port or settings.listen_port or 8765,
        web=web,
        workers=workers,
        runner=runner,
        auth=auth or settings.auth,
        lb_port=lb_port if lb else None,
        data_dir=data_directory(data, settings),
        log_format=log_format or settings.log_format,
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        drain_seconds=settings.drain_seconds,
        shutdown_seconds=settings.graceful_shutdown_seconds,
        worker_seconds=settings.worker_grace_seconds,
        metrics_port=settings.metrics_port,
        console=console,
    )
    try:
        code = asyncio.run(serve(wanted))
    except (CannotServe, OSError) as error:
        complain(error)
        code = 1
    exit_now(code)
