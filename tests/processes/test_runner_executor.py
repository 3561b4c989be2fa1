"""Execution of one run as a real process: the order of its reports, and its end."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from coordinator_client.runner_loop import outbox
from coordinator_client.runner_loop.executions import Reason
from coordinator_client.types import ClaimedRun
from runner.executor import Command, Execution
from testkit.waiting import eventually_async
from tests.support.local_execution import RUN, Recorder, as_coroutine, execution, perform


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_process_gets_its_run_on_stdin_and_in_environment() -> None:
    """Pass the run as JSON, without the token, and three variables."""
    recorder = await perform(
        "import os, sys; print(sys.stdin.read(), end='');"
        "print(*[os.environ['COORDINATOR_RUN_' + n] for n in ('ID', 'SESSION_ID', 'ATTEMPT')], 'PATH' in os.environ)"
    )
    given = {key: value for key, value in RUN.items() if key != "claim_token"}
    assert json.loads(recorder.lines[0]) == given
    assert recorder.lines[1] == "run_1 ses_1 2 True"


async def test_process_starts_after_accepted_start_and_ends_before_end_report() -> None:
    """Report started, bind, send events, then report the end with the claim's token."""
    recorder = await perform("print('hello')")
    assert recorder.told == ["started", "bound", "events", "completed"]
    assert recorder.reports == [{"run_id": "run_1", "claim_token": "secret", "outcome": "completed"}]


async def test_refused_start_starts_no_process(tmp_path: Path) -> None:
    """Leave no trace of a run that belongs to another runner."""
    recorder = await perform("import sys; open(sys.argv[1], 'w')", str(tmp_path / "trace"), refuse="started")
    assert recorder.told == ["started"]
    assert not (tmp_path / "trace").exists()


async def test_lines_are_sent_in_order_with_key_each() -> None:
    """Send thousands of lines in batches, stdout as assistant, stderr as system, each in its order."""
    recorder = await perform(
        "import sys\nfor n in range(5000):\n print('out', n)\n if n % 100 == 0: print('err', n, file=sys.stderr)"
    )
    by_role = {role: [e for e in recorder.events if e["role"] == role] for role in ("assistant", "system")}
    assert [e["content"][0]["text"] for e in by_role["assistant"]] == [f"out {n}" for n in range(5000)]
    assert [e["content"][0]["text"] for e in by_role["system"]] == [f"err {n}" for n in range(0, 5000, 100)]
    assert len({event["event_key"] for event in recorder.events}) == 5050
    assert all(len(event["event_key"]) <= 64 for event in recorder.events)
    assert recorder.told.count("events") < 500


async def test_failure_is_reported_with_exit_code_and_end_of_stderr() -> None:
    """Take the last lines, not the first ones."""
    recorder = await perform(
        "import sys\nfor n in range(100): print('line', n, file=sys.stderr)\nsys.exit(3)",
    )
    (report,) = recorder.reports
    assert (report["outcome"], report["exit_code"]) == ("failed", 3)
    assert report["error"].splitlines() == ["exit code 3", *(f"line {n}" for n in range(80, 100))]


async def test_process_killed_by_signal_is_reported_as_failed() -> None:
    """Name the signal, which is how running out of memory looks."""
    recorder = await perform("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert recorder.reports[0]["error"] == "killed by SIGKILL"


@pytest.mark.parametrize(
    ("command", "outcome", "said"),
    [
        ("/nonexistent/program", "released", "reason"),
        ("/etc/hostname", "released", "reason"),
        ("nul\0byte", "failed", "error"),
    ],
)
async def test_run_whose_command_cannot_start_is_released(command: str, outcome: str, said: str) -> None:
    """Release it for a missing or non-executable file, which another machine may have.

    An invalid name fails everywhere.
    """
    recorder = Recorder()
    await Execution(RUN, Command([command], "/"), recorder).perform()
    assert recorder.reports[0]["outcome"] == outcome
    assert str(cast("Any", recorder.reports[0])[said]).startswith("Cannot start ")


async def test_stop_ends_process_with_sigterm_and_reports_stopped() -> None:
    """Let a process that handles it print its last lines."""
    recorder = Recorder()
    running = execution(
        recorder,
        "import signal, sys, time\n"
        "def end(*_): print('bye'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('ready'); time.sleep(60)",
    )
    task = asyncio.create_task(running.perform())
    await eventually_async(as_coroutine(lambda: recorder.lines == ["ready"]))
    running.end(Reason.STOP)
    await task
    assert recorder.lines == ["ready", "bye"]
    assert recorder.reports == [{"run_id": "run_1", "claim_token": "secret", "outcome": "stopped", "signal": "SIGTERM"}]


async def test_process_that_ignores_sigterm_is_killed_with_its_group() -> None:
    """Send SIGKILL after the grace to the whole process group."""
    recorder = Recorder()
    running = execution(
        recorder,
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); os.write(1, b'%d\\n' % os.getpid()); time.sleep(60)",
        stop_grace_seconds=0.3,
    )
    task = asyncio.create_task(running.perform())
    await eventually_async(as_coroutine(lambda: len(recorder.lines) == 2))
    running.end(Reason.STOP)
    await task
    assert recorder.reports[0]["signal"] == "SIGKILL"
    await eventually_async(as_coroutine(lambda: not any(is_alive(int(pid)) for pid in recorder.lines)))


async def test_child_may_outlive_its_parent_during_stop_grace() -> None:
    """Give it the rest of 5 s: a shell dies at once by SIGTERM, the job that it started may need time."""
    job = "import signal, sys, time\ndef end(*_): time.sleep(1.2); print('saved'); sys.exit()\nsignal.signal(15, end); print('ready'); time.sleep(60)"
    recorder = Recorder()
    running = Execution(RUN, Command(["sh", "-c", '"$0" -uc "$1"; true', sys.executable, job], "/"), recorder)
    task = asyncio.create_task(running.perform())
    await eventually_async(as_coroutine(lambda: recorder.lines == ["ready"]))
    running.end(Reason.STOP)
    await task
    assert recorder.lines == ["ready", "saved"]


async def test_stop_before_start_prevents_process(tmp_path: Path) -> None:
    """Stop while `started` is on its way."""
    recorder = Recorder()
    running = execution(recorder, "import sys; open(sys.argv[1], 'w')", str(tmp_path / "trace"))
    running.end(Reason.STOP)
    await running.perform()
    assert recorder.reports[0]["outcome"] == "stopped"
    assert not (tmp_path / "trace").exists()


async def test_stop_after_end_changes_nothing() -> None:
    """Report the true end, however late the stop."""
    recorder = Recorder()
    recorder.open.clear()
    running = execution(recorder, "print('done')")
    task = asyncio.create_task(running.perform())
    await eventually_async(
        as_coroutine(lambda: running._process is not None and running._process.exit_code is not None)
    )
    running.end(Reason.STOP)
    recorder.open.set()
    await task
    assert [report["outcome"] for report in recorder.reports] == ["completed"]


@pytest.mark.parametrize("refused", ["bound", "events"])
async def test_reassigned_run_is_killed_and_not_reported(refused: str) -> None:
    """Answer 409 to a bind or to events: another runner executes it."""
    recorder = await perform("import time; print('x'); time.sleep(60)", refuse=refused)
    assert recorder.told[-1] == refused
    assert recorder.reports == []


async def test_lost_run_is_killed_at_once_even_while_stopping() -> None:
    """Skip the grace, since the run executes elsewhere."""
    recorder = Recorder()
    running = execution(
        recorder,
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)",
        stop_grace_seconds=600,
    )
    task = asyncio.create_task(running.perform())
    await eventually_async(as_coroutine(lambda: recorder.lines == ["ready"]))
    running.end(Reason.STOP)
    running.end(Reason.LOST)
    await asyncio.wait_for(task, 30)
    assert recorder.reports == []


async def test_runner_that_leaves_ends_process_without_end_report() -> None:
    """Send the output, and let the coordinator give the run to another runner."""
    recorder = Recorder()
    running = execution(recorder, "import time; print('ready'); time.sleep(60)")
    task = asyncio.create_task(running.perform())
    await eventually_async(as_coroutine(lambda: recorder.lines == ["ready"]))
    running.end(Reason.LEAVING)
    await task
    assert recorder.reports == []


async def test_cancelling_kills_process() -> None:
    recorder = Recorder()
    running = execution(recorder, "import os, time; print(os.getpid()); time.sleep(60)")
    task = asyncio.create_task(running.perform())
    await eventually_async(as_coroutine(lambda: bool(recorder.lines)))
    task.cancel()
    await asyncio.wait([task])
    await eventually_async(as_coroutine(lambda: not is_alive(int(recorder.lines[0]))))


async def test_fast_output_waits_in_pipe_while_coordinator_is_away(tmp_path: Path) -> None:
    """Bound the memory meanwhile, and lose nothing."""
    recorder = Recorder()
    recorder.open.clear()
    script = "import sys\nfor n in range(200_000):\n print(n)\n open(sys.argv[1], 'w').write(str(n)) if n % 1000 == 0 else None"
    running = execution(recorder, script, str(tmp_path / "progress"))
    task = asyncio.create_task(running.perform())
    await eventually_async(as_coroutine(lambda: len(running._outbox._waiting) >= outbox.MOST_WAITING))
    seen = None
    while seen != (seen := (tmp_path / "progress").read_text()):
        await asyncio.wait([task], timeout=0.3)
    assert int(seen or 0) < 150_000
    assert len(running._outbox._waiting) <= outbox.MOST_WAITING + 1
    recorder.open.set()
    await task
    assert recorder.lines == [str(n) for n in range(200_000)]


async def test_child_left_behind_does_not_keep_run_open() -> None:
    """Kill it with its group; do not wait for one in another session."""
    left = await perform(
        "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid); print('done')",
    )
    assert left.lines[1] == "done"
    assert left.told[-1] == "completed"
    await eventually_async(as_coroutine(lambda: not is_alive(int(left.lines[0]))))
    fled = await perform(
        "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid); print('done')"
    )
    assert fled.told[-1] == "completed"
    os.kill(int(fled.lines[0]), 9)


async def test_lines_of_any_length_and_bytes_are_sent() -> None:
    """Print a megabyte without a line end, and bytes that are not UTF-8."""
    recorder = await perform(
        "import sys; sys.stdout.buffer.write(b'\\xff\\x00ok\\n' + b'x' * 1_000_000); sys.stdout.flush()"
    )
    assert recorder.lines[0] == "\ufffd\0ok"
    assert "".join(recorder.lines[1:]) == "x" * 1_000_000


async def test_process_that_ignores_stdin_is_no_error() -> None:
    run = cast("ClaimedRun", {**RUN, "parameters": {"prompt": "x" * 1_000_000}})
    recorder = Recorder()
    await Execution(run, Command(["true"], "/"), recorder).perform()
    assert recorder.told[-1] == "completed"
