"""Output of a run's process: sent completely and soon, in bounded memory and number."""

import asyncio
from unittest.mock import patch

import pytest

from coordinator_client.runner_loop import outbox
from coordinator_client.runner_loop.executions import Reason
from runner import reading
from runner.executor import Command, Execution
from testkit.waiting import eventually_async
from tests.support.local_execution import RUN, Recorder, SlowRecorder, as_coroutine, execution, perform, perform_shell


async def output_left_in_pipe_is_sent(script: str) -> None:
    """Count exactly 60,000 lines through a coordinator that takes 20 ms a request."""
    with patch.object(outbox, "GATHER_SECONDS", 0.0):
        recorder = await perform_shell(script, SlowRecorder())
    expected = [str(number) for number in range(1, 60_001)]
    told = [line for line in recorder.lines if line]
    assert told == expected, f"{len(told)} of 60,000 lines were told"
    assert recorder.told[-1] == "completed"


@pytest.mark.parametrize(
    "script",
    ["seq 60000", "seq 60000 & exit 0", "exec > >(cat); seq 60000", "(seq 60000; sleep 0.1; echo) & exit 0"],
    ids=["itself", "a child it left", "through a pipe", "a child that pauses"],
)
async def test_output_left_in_pipe_is_sent_despite_slow_coordinator(
    script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A crowded machine may let what the command left wait for its turn.
    monkeypatch.setattr(reading, "LEFTOVER_SECONDS", 5.0)
    monkeypatch.setattr(reading, "WAIT_AFTER_END_SECONDS", 60.0)
    await output_left_in_pipe_is_sent(script)


async def test_process_that_writes_forever_is_given_up_with_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after so much output, however fast it comes."""
    monkeypatch.setattr(reading, "READS_AFTER_END", 2)
    recorder = await perform_shell("yes abcdefghijklmnopqrstuvwxyz & exit 0")
    assert recorder.told[-1] == "completed"
    assert 2 * 65_536 <= len(recorder.said()) < 1_000_000
    assert len(recorder.notices) == 1


async def test_process_that_writes_slowly_forever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after so much time spent waiting for it."""
    monkeypatch.setattr(reading, "WAIT_AFTER_END_SECONDS", 0.7)
    recorder = await perform_shell("(while true; do echo tick; sleep 0.1; done) & exit 0")
    assert recorder.told[-1] == "completed"
    assert "tick" in recorder.lines
    assert len(recorder.notices) == 1


async def test_silent_process_left_behind_is_given_up_without_notice() -> None:
    recorder = await perform_shell("sleep 60 & echo done")
    assert (recorder.lines, recorder.notices) == (["done"], [])
    assert recorder.told[-1] == "completed"


async def test_one_pipe_is_read_until_the_other_is_silent_too() -> None:
    """Read the last output of leftover processes on either."""
    recorder = await perform_shell("(for n in 1 2 3 4; do sleep 0.3; echo $n >&2; done; echo last) & exit 0")
    assert recorder.lines == ["1", "2", "3", "4", "last"]


async def test_output_without_line_end_is_sent_while_process_runs() -> None:
    """Send it as a partial text, on both pipes; the rest continues it."""
    recorder = Recorder()
    script = "import sys, time; sys.stdout.write('name? '); sys.stderr.write('warning: '); time.sleep(60)"
    task = asyncio.create_task(execution(recorder, script).perform())
    await eventually_async(as_coroutine(lambda: len(recorder.events) == 2))
    assert {event["role"]: event["content"][0] for event in recorder.events} == {
        "assistant": {"type": "text", "text": "name? ", "partial": True},
        "system": {"type": "text", "text": "warning: ", "partial": True},
    }
    task.cancel()
    await asyncio.wait([task])


async def test_output_that_trickles_without_line_end_is_sent_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Need no pause of the process for it."""
    monkeypatch.setattr("runner.output.SHOW_SECONDS", 0.2)
    recorder = Recorder()
    script = "import sys, time\nwhile True: sys.stdout.write('.'); time.sleep(0.01)"
    task = asyncio.create_task(execution(recorder, script).perform())
    await eventually_async(as_coroutine(lambda: len(recorder.events) >= 3))
    assert set(recorder.said()) == {"."}
    task.cancel()
    await asyncio.wait([task])


async def test_joined_partial_texts_equal_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Include pauses within lines, blank lines, a missing last line end, terminal codes and a long line."""
    monkeypatch.setattr("runner.output.SHOW_SECONDS", 0.01)
    text = "one\ntwo\n\n\x1b[31mred\x1b[0m \x1b]0;title\x07\nü" + "x" * 100_000 + "\n{}\n \nend"
    script = (
        "import sys, time\ntext = sys.argv[1]\n"
        "for at in range(0, len(text), 997):\n"
        " sys.stdout.write(text[at:at + 997])\n if at % 3 == 0: time.sleep(0.02)"
    )
    recorder = await perform(script, text)
    assert recorder.said() == text
    assert [event for event in recorder.events if event["content"][0].get("partial")]


async def test_progress_collapses_to_its_last_state() -> None:
    """Send one text for a bar that was redrawn ten thousand times between two of ours."""
    recorder = await perform(
        "import sys\nfor n in range(10_001): sys.stdout.write(f'\\r{n}')\nsys.stdout.write('\\ndone\\n')"
    )
    assert recorder.said().replace("\n", "\r").split("\r")[-3:] == ["10000", "done", ""]
    assert len(recorder.events) < 100


async def test_fast_lines_are_not_cut_into_partial_texts() -> None:
    """Hold back a line at the end of a read, also when a slow coordinator makes us late."""
    recorder = SlowRecorder()
    await Execution(RUN, Command(["seq", "100000", "130000"], "/"), recorder).perform()
    assert recorder.lines == [str(number) for number in range(100_000, 130_001)]


async def test_output_beyond_limit_is_left_out_with_one_notice() -> None:
    """Do not block the process; send its result and its error as usual."""
    result = '{"result_text": "done"}'
    recorder = await perform_shell(f"seq 100000; echo x >&2; echo '{result}'", most_output_bytes=1000)
    assert recorder.said() == "".join(f"{number}\n" for number in range(1, 278))
    assert len(recorder.said()) <= 1000
    assert recorder.notices == ["[runner] The output beyond 1000 bytes is left out (--max-output of the runner)"]
    assert recorder.results[0]["result_text"] == "done"
    failed = await perform_shell("seq 100; echo why >&2; exit 3", most_output_bytes=0)
    assert (failed.said(), failed.said("system")) == ("", "")
    assert failed.reports[0]["error"] == "exit code 3\nwhy"
    exact = await perform_shell("printf 'abc\\nde'", most_output_bytes=6)
    assert (exact.said(), exact.notices) == ("abc\nde", [])


async def test_stop_grace_is_time_between_sigterm_and_sigkill() -> None:
    """Send SIGKILL at once with a grace of 0."""
    recorder = Recorder()
    running = execution(
        recorder,
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)",
        stop_grace_seconds=0.0,
    )
    task = asyncio.create_task(running.perform())
    await eventually_async(as_coroutine(lambda: recorder.lines == ["ready"]))
    running.end(Reason.STOP)
    await task
    assert recorder.reports[0]["signal"] == "SIGKILL"
