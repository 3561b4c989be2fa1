import os
import signal
import sys
import threading
from typing import Annotated

import typer

LAST_PORT = 65_535


def worker(
    processes: Annotated[int, typer.Option(min=1, max=256, help="Number of worker processes.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, max=256, help="Threads of each process (default: COORDINATOR_WORKER_THREADS).")
    ] = None,
    queues: Annotated[str, typer.Option(help="Queues to serve, comma-separated.")] = "dispatch,feed,upkeep",
    name: Annotated[str, typer.Option(hidden=True, help="Name in log lines.")] = "worker",
    ready_fd: Annotated[int | None, typer.Option(hidden=True, help="Descriptor to write `ready` to.")] = None,
    metrics_fd: Annotated[int | None, typer.Option(hidden=True, help="Listening socket for the metrics.")] = None,
    lifeline: Annotated[
        int | None, typer.Option(hidden=True, help="Descriptor of which the closing ends this process.")
    ] = None,
) -> None:
    """Run dispatch, feed and upkeep until SIGTERM.

    With COORDINATOR_METRICS_PORT each process serves /metrics and /health/live: the first there, others on the next
    ports. Actors in progress have COORDINATOR_WORKER_GRACE_SECONDS to finish; after SIGINT a few seconds.
    """
    from runtime.logs import configure_logs
    from runtime.names import Queue
    from runtime.otel_loading import need_tracing
    from runtime.processes import exit_now, freeze_gc, tell_ready
    from runtime.settings import load_settings

    settings = load_settings()
    settings.need_servers()
    need_tracing(settings)
    known = {queue.value for queue in Queue}
    wanted = tuple(dict.fromkeys(part.strip() for part in queues.split(",") if part.strip()))
    if not wanted or not known.issuperset(wanted):
        raise typer.BadParameter(f"choose from {', '.join(sorted(known))}", param_hint="--queues")
    if settings.metrics_port + processes - 1 > LAST_PORT:
        raise typer.BadParameter(
            "there are not so many ports from COORDINATOR_METRICS_PORT on", param_hint="--processes"
        )
    if lifeline is not None:
        _end_with(lifeline)
    configure_logs(settings, process=name)
    per_process = threads or settings.worker_threads
    if processes > 1:
        from cli.worker_parent import run_processes

        sys.exit(run_processes(processes, settings, threads=per_process, queues=wanted))
    from server.metrics_server import serve_metrics
    from workers.main import run

    address = None
    if metrics_fd is not None or settings.metrics_port:
        address = serve_metrics(host=settings.metrics_host, port=settings.metrics_port, fd=metrics_fd)
    freeze_gc()
    ended = run(
        settings, queues=wanted, threads=per_process, tell_ready=lambda: tell_ready(ready_fd), metrics_address=address
    )
    exit_now(ended)


def _end_with(lifeline: int) -> None:
    """Send SIGTERM to this process when the parent ends, even by SIGKILL: its end of the pipe closes then."""

    def watch() -> None:
        os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
