"""A run's output and result, with the mechanism broken on purpose: the scenario that guards it must notice."""

import signal
from time import monotonic

import pytest

from runner import output, reading
from runner.process import Process
from runner.reading import Reading
from tests.support.run_scenarios import output_of_what_outlives_the_command, result_before_a_pause


async def test_candidate_that_is_forgotten_once_it_is_shown_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that lives on after its result would complete without one."""

    async def forget(self: output.RunOutput) -> None:
        await shown(self)
        self._candidate = None

    shown = output.RunOutput._tell_candidate
    monkeypatch.setattr(output.RunOutput, "_tell_candidate", forget)
    with pytest.raises(AssertionError, match="the result was lost"):
        await result_before_a_pause()


async def test_silence_counted_from_the_commands_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its children wait to write, because we read slowly, would be dropped."""
    began: list[float] = []

    def silence_left(self: Reading) -> float:
        began[:] = began or [monotonic()]
        return max(0.0, began[0] + reading.LEFTOVER_SECONDS - monotonic())

    monkeypatch.setattr(Reading, "_silence_left", silence_left)
    with pytest.raises(AssertionError, match="of 60,000 lines were told"):
        await output_of_what_outlives_the_command("seq 60000 & exit 0")


async def test_children_killed_at_the_commands_end_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before their output was read."""

    async def exited(self: Process) -> None:
        await waited(self)
        self.signal_group(signal.SIGKILL)

    waited = Process.exited
    monkeypatch.setattr(Process, "exited", exited)
    with pytest.raises(AssertionError, match="of 60,000 lines were told"):
        await output_of_what_outlives_the_command("seq 60000 & exit 0")
