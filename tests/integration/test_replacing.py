"""Replacement of a supervised process by another of its service."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from devserver.console import Console
from devserver.supervisor import Child, Service, Supervisor
from runtime.processes import is_alive, read_pid_file
from testkit.waiting import eventually_async

# Report readiness unless the arguments say otherwise; on the order to retire, report it and end.
PROCESS = """
import os, signal, sys, time
def retire(*_):
    print("retired", flush=True)
    sys.exit(0)
signal.signal(signal.SIGUSR1, retire)
arguments, fd = sys.argv[1:-2], int(sys.argv[-1])
print("arguments", *arguments, flush=True)
if "dies" in arguments:
    sys.exit(3)
if "hangs" not in arguments:
    os.write(fd, b"ready")
time.sleep(60)
"""
Scenario = Callable[[Supervisor, Child], Awaitable[None]]


def supervised(data_dir: Path, trial: tuple[str, ...], scenario: Scenario) -> str:
    """Run a scenario with one process that serves; return what its processes have logged."""
    service = Service(
        "web-1",
        (sys.executable, "-c", PROCESS),
        {},
        grace=5,
        tells_ready=True,
        trial=trial,
        retire=signal.SIGUSR1,
    )

    async def run() -> None:
        supervisor = Supervisor(Console("json"), data_dir)
        try:
            child = supervisor.keep(service)
            assert not await child.until_ready(20)
            await scenario(supervisor, child)
        finally:
            await supervisor.end([lambda _: True])

    (data_dir / "run").mkdir()
    asyncio.run(run())
    assert not list((data_dir / "run").glob("*.pid"))
    return (data_dir / "logs" / "web-1.log").read_text()


def named(data_dir: Path, name: str = "web-1") -> psutil.Process:
    process = read_pid_file(data_dir / "run" / f"{name}.pid")
    assert process
    return process


def takes_over_when_it_is_ready(data_dir: Path) -> None:
    """Tell the former process to retire, not to end; it is gone when it has."""

    async def scenario(supervisor: Supervisor, child: Child) -> None:
        former = named(data_dir)
        assert await supervisor.replace(child, 20) == ""
        assert not is_alive(former)
        assert named(data_dir).pid not in {former.pid, None}
        assert [one.pid for one in supervisor.children] == [named(data_dir).pid]
        assert [path.name for path in (data_dir / "run").glob("*.pid")] == ["web-1.pid"]

    said = supervised(data_dir, ("second",), scenario)
    assert said.count("retired") == 1
    assert said.index("arguments second") < said.index("retired")


def stays_without_a_successor(data_dir: Path, flaw: str, fault: str) -> None:
    """Report the fault and leave nothing of the attempt; do not restart a broken successor again and again."""

    async def scenario(supervisor: Supervisor, child: Child) -> None:
        former = named(data_dir)
        # Time enough to die; a hanging one exceeds any time.
        assert (await supervisor.replace(child, 0.5 if flaw == "hangs" else 20)).startswith(fault)
        assert [one.pid for one in supervisor.children] == [former.pid] == [named(data_dir).pid]
        assert [one.pid for one in psutil.Process().children()] == [former.pid]

    assert "retired" not in supervised(data_dir, (flaw,), scenario)


async def serves_anew(data_dir: Path, former: int) -> bool:
    """Return whether another process than this one serves."""
    process = read_pid_file(data_dir / "run" / "web-1.pid")
    return process is not None and process.pid != former


def leaves_one_shot_commands_alone(data_dir: Path) -> None:
    """Let a migration continue when a replica dies beside it: end only what the dead one has left."""

    async def scenario(supervisor: Supervisor, child: Child) -> None:
        dead = named(data_dir)

        async def others() -> list[psutil.Process]:
            return [one for one in psutil.Process().children() if one.pid != dead.pid]

        with (data_dir / "once.log").open("wb") as log:
            migration = asyncio.create_task(supervisor.run_once(("/bin/sleep", "60"), {}, log))
            process = (await eventually_async(others, what="its process"))[0]
            dead.kill()
            await eventually_async(lambda: serves_anew(data_dir, dead.pid), what="the next one")
            assert is_alive(process)
            process.terminate()
            assert await migration == -signal.SIGTERM

    supervised(data_dir, (), scenario)


def is_restarted_like_any_other(data_dir: Path) -> None:
    """Start it without the options of its trial, since no other process serves beside it any more."""

    async def scenario(supervisor: Supervisor, child: Child) -> None:
        assert await supervisor.replace(child, 20) == ""
        (successor,) = supervisor.children
        dead = named(data_dir)
        dead.kill()
        await eventually_async(lambda: serves_anew(data_dir, dead.pid), what="the next one")
        assert not await successor.until_ready(20)

    said = supervised(data_dir, ("second",), scenario)
    assert [line for line in said.splitlines() if "arguments" in line] == ["arguments", "arguments second", "arguments"]


ROOT = Path(__file__).parents[2]
RUN = "import sys; from pathlib import Path; from tests.integration import test_replacing; "


def alone(scenario: str, tmp_path: Path, *arguments: str) -> None:
    """Run a scenario of this file in a process of its own."""
    call = "getattr(test_replacing, sys.argv[1])(Path(sys.argv[2]), *sys.argv[3:])"
    command = [sys.executable, "-c", RUN + call, scenario, str(tmp_path), *arguments]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert played.returncode == 0, played.stderr


def test_successor_takes_over_when_it_is_ready(tmp_path: Path) -> None:
    """Tell the former one to retire, not to end; it is gone when it has."""
    alone("takes_over_when_it_is_ready", tmp_path)


@pytest.mark.parametrize(("flaw", "fault"), [("hangs", "was not ready within 0.5 s"), ("dies", "ended (exit code 3)")])
def test_former_process_stays_without_ready_successor(tmp_path: Path, flaw: str, fault: str) -> None:
    """Report the reason, leave nothing of the attempt, and do not restart a broken one again and again."""
    alone("stays_without_a_successor", tmp_path, flaw, fault)


def test_death_of_process_does_not_end_migration(tmp_path: Path) -> None:
    """Let the migration finish: ending it would stop the deploy, and could leave the schema half way."""
    alone("leaves_one_shot_commands_alone", tmp_path)


def test_successor_that_dies_later_is_restarted_as_any_other(tmp_path: Path) -> None:
    """Ask nothing again that was asked on trial, since no other process serves beside it."""
    alone("is_restarted_like_any_other", tmp_path)
