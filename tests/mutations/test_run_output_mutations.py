"""Break the mechanism of a run's output and result on purpose: the scenario that guards it must notice."""

import signal
from time import monotonic

import pytest

from runner import output, reading
from runner.process import Process
from runner.reading import Reading
from tests.integration import test_runner_output, test_runner_results


async def test_result_candidate_forgotten_once_printed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that lives on after its result would complete without one."""

    async def forget(self: output.RunOutput) -> None:
        await shown(self)
        self._candidate = None

    shown = output.RunOutput._tell_candidate
    monkeypatch.setattr(output.RunOutput, "_tell_candidate", forget)
    with pytest.raises(AssertionError, match="the result was lost"):
        await test_runner_results.test_process_may_live_on_after_its_result()


async def test_silence_counted_from_commands_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output that its children wait to write, because we read slowly, would be dropped."""
    began: list[float] = []

    def silence_left(self: Reading) -> float:
        began[:] = began or [monotonic()]
        return max(0.0, began[0] + reading.LEFTOVER_SECONDS - monotonic())

    monkeypatch.setattr(Reading, "_silence_left", silence_left)
    with pytest.raises(AssertionError, match="of 60,000 lines were told"):
        await test_runner_output.output_left_in_pipe_is_sent("seq 60000 & exit 0")


async def test_children_killed_at_commands_end_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill them before their output is read."""

    async def exited(self: Process) -> None:
        await waited(self)
        self.signal_group(signal.SIGKILL)

    waited = Process.exited
    monkeypatch.setattr(Process, "exited", exited)
    with pytest.raises(AssertionError, match="of 60,000 lines were told"):
        await test_runner_output.output_left_in_pipe_is_sent("seq 60000 & exit 0")
