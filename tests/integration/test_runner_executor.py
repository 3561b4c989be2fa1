"""One run as a real process: what is told of it, in which order, and how it ends."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from coordinator_client.types import ClaimedRun
from runner import outbox
from runner.executor import Command, Execution, Reason
from tests.support.local_execution import RUN, Recorder, asked, execution, perform
from tests.support.waiting import eventually_async


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_the_process_gets_its_run_on_stdin_and_in_the_environment() -> None:
    """The run as JSON, without the token, and three variables."""
    recorder = await perform(
        "import os, sys; print(sys.stdin.read(), end='');"
        "print(*[os.environ['COORDINATOR_RUN_' + n] for n in ('ID', 'SESSION_ID', 'ATTEMPT')], 'PATH' in os.environ)"
    )
    given = {key: value for key, value in RUN.items() if key != "claim_token"}
    assert json.loads(recorder.lines[0]) == given
    assert recorder.lines[1] == "run_1 ses_1 2 True"


async def test_the_process_begins_after_started_was_accepted_and_ends_after_its_events_were() -> None:
    """started, bound, events, then the end report with the claim's token."""
    recorder = await perform("print('hello')")
    assert recorder.told == ["started", "bound", "events", "completed"]
    assert recorder.reports == [{"run_id": "run_1", "claim_token": "secret", "outcome": "completed"}]


async def test_a_refused_start_begins_nothing(tmp_path: Path) -> None:
    """Somebody else's run leaves no trace here."""
    recorder = await perform("import sys; open(sys.argv[1], 'w')", str(tmp_path / "trace"), refuse="started")
    assert recorder.told == ["started"]
    assert not (tmp_path / "trace").exists()


async def test_lines_are_told_in_order_with_a_key_each() -> None:
    """Thousands of lines, stdout as assistant, stderr as system, in the order of each, in batches."""
    recorder = await perform(
        "import sys\nfor n in range(5000):\n print('out', n)\n if n % 100 == 0: print('err', n, file=sys.stderr)"
    )
    by_role = {role: [e for e in recorder.events if e["role"] == role] for role in ("assistant", "system")}
    assert [e["content"][0]["text"] for e in by_role["assistant"]] == [f"out {n}" for n in range(5000)]
    assert [e["content"][0]["text"] for e in by_role["system"]] == [f"err {n}" for n in range(0, 5000, 100)]
    assert len({event["event_key"] for event in recorder.events}) == 5050
    assert all(len(event["event_key"]) <= 64 for event in recorder.events)
    assert recorder.told.count("events") < 500


async def test_a_failure_is_reported_with_its_exit_code_and_the_end_of_stderr() -> None:
    """The last lines, not the first ones."""
    recorder = await perform(
        "import sys\nfor n in range(100): print('line', n, file=sys.stderr)\nsys.exit(3)",
    )
    (report,) = recorder.reports
    assert report["outcome"] == "failed"
    assert report["error"].splitlines() == ["exit code 3", *(f"line {n}" for n in range(80, 100))]


async def test_a_process_that_a_signal_killed_has_failed_by_it() -> None:
    """Out of memory looks like this."""
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
async def test_run_whose_command_cannot_be_started_is_given_back(command: str, outcome: str, said: str) -> None:
    """No such file, not executable: another machine may have it; what is no name at all fails everywhere."""
    recorder = Recorder()
    await Execution(RUN, Command([command], "/"), recorder).perform()
    assert recorder.reports[0]["outcome"] == outcome
    assert str(cast("Any", recorder.reports[0])[said]).startswith("Cannot start ")


async def test_a_stop_ends_the_process_with_sigterm_and_reports_stopped() -> None:
    """A process that listens has the time to say its last words."""
    recorder = Recorder()
    running = execution(
        recorder,
        "import signal, sys, time\n"
        "def end(*_): print('bye'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('ready'); time.sleep(60)",
    )
    task = asyncio.create_task(running.perform())
    await eventually_async(asked(lambda: recorder.lines == ["ready"]))
    running.end(Reason.STOP)
    await task
    assert recorder.lines == ["ready", "bye"]
    assert recorder.reports == [{"run_id": "run_1", "claim_token": "secret", "outcome": "stopped", "signal": "SIGTERM"}]


async def test_what_does_not_listen_to_sigterm_is_killed_with_all_it_started() -> None:
    """SIGKILL after the grace, to the whole process group."""
    recorder = Recorder()
    running = execution(
        recorder,
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); os.write(1, b'%d\\n' % os.getpid()); time.sleep(60)",
        stop_grace_seconds=0.3,
    )
    task = asyncio.create_task(running.perform())
    await eventually_async(asked(lambda: len(recorder.lines) == 2))
    running.end(Reason.STOP)
    await task
    assert recorder.reports[0]["signal"] == "SIGKILL"
    await eventually_async(asked(lambda: not any(is_alive(int(pid)) for pid in recorder.lines)))


async def test_a_child_may_take_its_time_after_its_parent_has_obeyed() -> None:
    """A shell dies at once by SIGTERM, the job it started still has its 5 s."""
    job = "import signal, sys, time\ndef end(*_): time.sleep(1.2); print('saved'); sys.exit()\nsignal.signal(15, end); print('ready'); time.sleep(60)"
    recorder = Recorder()
    running = Execution(RUN, Command(["sh", "-c", '"$0" -uc "$1"; true', sys.executable, job], "/"), recorder)
    task = asyncio.create_task(running.perform())
    await eventually_async(asked(lambda: recorder.lines == ["ready"]))
    running.end(Reason.STOP)
    await task
    assert recorder.lines == ["ready", "saved"]


async def test_a_stop_before_the_process_begins_keeps_it_from_beginning(tmp_path: Path) -> None:
    """It came while `started` was on its way."""
    recorder = Recorder()
    running = execution(recorder, "import sys; open(sys.argv[1], 'w')", str(tmp_path / "trace"))
    running.end(Reason.STOP)
    await running.perform()
    assert recorder.reports[0]["outcome"] == "stopped"
    assert not (tmp_path / "trace").exists()


async def test_a_stop_after_the_end_changes_nothing() -> None:
    """The truth is reported, however late the stop."""
    recorder = Recorder()
    recorder.open.clear()
    running = execution(recorder, "print('done')")
    task = asyncio.create_task(running.perform())
    await eventually_async(asked(lambda: running._process is not None and running._process.exit_code is not None))
    running.end(Reason.STOP)
    recorder.open.set()
    await task
    assert [report["outcome"] for report in recorder.reports] == ["completed"]


@pytest.mark.parametrize("refused", ["bound", "events"])
async def test_a_run_that_is_not_ours_any_more_is_killed_and_not_reported(refused: str) -> None:
    """409 to a bind or to events: another runner executes it, ours must not go on."""
    recorder = await perform("import time; print('x'); time.sleep(60)", refuse=refused)
    assert recorder.told[-1] == refused
    assert recorder.reports == []


async def test_a_lost_run_is_killed_at_once_even_if_it_is_being_stopped() -> None:
    """No five seconds for a process whose run executes elsewhere."""
    recorder = Recorder()
    running = execution(
        recorder, "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)"
    )
    task = asyncio.create_task(running.perform())
    await eventually_async(asked(lambda: recorder.lines == ["ready"]))
    running.end(Reason.STOP)
    running.end(Reason.LOST)
    await asyncio.wait_for(task, 3)
    assert recorder.reports == []


async def test_a_runner_that_leaves_ends_the_process_and_reports_nothing() -> None:
    """So that the coordinator gives the run to another runner; what was printed is told."""
    recorder = Recorder()
    running = execution(recorder, "import time; print('ready'); time.sleep(60)")
    task = asyncio.create_task(running.perform())
    await eventually_async(asked(lambda: recorder.lines == ["ready"]))
    running.end(Reason.LEAVING)
    await task
    assert recorder.reports == []


async def test_cancelling_kills_the_process() -> None:
    """Nothing survives the runner's own end."""
    recorder = Recorder()
    running = execution(recorder, "import os, time; print(os.getpid()); time.sleep(60)")
    task = asyncio.create_task(running.perform())
    await eventually_async(asked(lambda: bool(recorder.lines)))
    task.cancel()
    await asyncio.wait([task])
    await eventually_async(asked(lambda: not is_alive(int(recorder.lines[0]))))


async def test_a_process_that_prints_faster_than_told_waits_in_its_pipe(tmp_path: Path) -> None:
    """Memory stays bounded while the coordinator is away, and nothing is lost when it is back."""
    recorder = Recorder()
    recorder.open.clear()
    script = "import sys\nfor n in range(200_000):\n print(n)\n open(sys.argv[1], 'w').write(str(n)) if n % 1000 == 0 else None"
    running = execution(recorder, script, str(tmp_path / "progress"))
    task = asyncio.create_task(running.perform())
    await eventually_async(asked(lambda: len(running._outbox._waiting) >= outbox.MOST_WAITING))
    seen = None
    while seen != (seen := (tmp_path / "progress").read_text()):
        await asyncio.wait([task], timeout=0.3)
    assert int(seen or 0) < 150_000
    assert len(running._outbox._waiting) <= outbox.MOST_WAITING + 1
    recorder.open.set()
    await task
    assert recorder.lines == [str(n) for n in range(200_000)]


async def test_a_child_left_behind_does_not_keep_the_run_open() -> None:
    """It is killed with its group; one that fled into another session is not waited for."""
    left = await perform(
        "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid); print('done')",
    )
    assert left.lines[1] == "done"
    assert left.told[-1] == "completed"
    await eventually_async(asked(lambda: not is_alive(int(left.lines[0]))))
    fled = await perform(
        "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid); print('done')"
    )
    assert fled.told[-1] == "completed"
    os.kill(int(fled.lines[0]), 9)


async def test_lines_of_any_length_and_any_bytes_are_told() -> None:
    """A megabyte without a line end, and bytes that are not UTF-8."""
    recorder = await perform(
        "import sys; sys.stdout.buffer.write(b'\\xff\\x00ok\\n' + b'x' * 1_000_000); sys.stdout.flush()"
    )
    assert recorder.lines[0] == "\ufffd\0ok"
    assert "".join(recorder.lines[1:]) == "x" * 1_000_000


async def test_a_process_that_does_not_read_its_input_is_not_in_error() -> None:
    """Most commands never look at stdin."""
    run = cast("ClaimedRun", {**RUN, "parameters": {"prompt": "x" * 1_000_000}})
    recorder = Recorder()
    await Execution(run, Command(["true"], "/"), recorder).perform()
    assert recorder.told[-1] == "completed"
