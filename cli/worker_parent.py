import asyncio
import os
import signal
from collections.abc import Sequence

from devserver.console import Console
from devserver.supervisor import Service, Supervisor, own_command
from runtime.settings import Settings


def run_processes(count: int, settings: Settings, *, threads: int, queues: Sequence[str]) -> int:
    return asyncio.run(_run(count, settings, threads, queues))


async def _run(count: int, settings: Settings, threads: int, queues: Sequence[str]) -> int:
    stop = asyncio.Event()
    supervisor = Supervisor(Console("console"))
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, lambda: supervisor.hurry.set() if stop.is_set() else stop.set())
    heard, _held = os.pipe()  # closes when this process ends, even by SIGKILL: then the workers end too
    for number in range(1, count + 1):
        name = f"worker-{number}"
        arguments = ("--threads", str(threads), "--queues", ",".join(queues), "--name", name, "--lifeline", str(heard))
        command = own_command("worker", "--processes", "1", *arguments)
        env = child_environment()
        if settings.metrics_port:
            # Each process counts for itself, so each is a target of its own.
            env["COORDINATOR_METRICS_PORT"] = str(settings.metrics_port + number - 1)
        supervisor.keep(Service(name, command, env, grace=settings.worker_grace_seconds + 2, fds=(heard,)))
    await stop.wait()
    await supervisor.end([lambda _name: True])
    return 0


def child_environment() -> dict[str, str]:
    return dict(os.environ)
