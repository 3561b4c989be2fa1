"""Scenarios of a run's output and result, for tests and mutations."""

from unittest.mock import patch

from runner import outbox
from tests.support.local_execution import SlowRecorder, perform_shell


async def output_of_processes_that_outlive_the_command(script: str) -> None:
    """Count exactly 60,000 lines through a coordinator that takes 20 ms a request."""
    with patch.object(outbox, "GATHER_SECONDS", 0.0):
        recorder = await perform_shell(script, SlowRecorder())
    expected = [str(number) for number in range(1, 60_001)]
    told = [line for line in recorder.lines if line]
    assert told == expected, f"{len(told)} of 60,000 lines were told"
    assert recorder.told[-1] == "completed"


async def result_before_a_pause() -> None:
    """Print a JSON object longer before the exit than a quiet line is kept back."""
    recorder = await perform_shell("""echo hello; echo '{"result_text":"x"}'; sleep 1.2""")
    assert [result["result_text"] for result in recorder.results] == ["x"], "the result was lost"
    assert recorder.lines == ["hello", '{"result_text":"x"}']
    assert recorder.events[-1] is recorder.results[0]
