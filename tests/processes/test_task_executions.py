"""Execution of one run by a function, whose end is reported whatever goes wrong."""

import asyncio
from typing import Any, cast

import pytest

from coordinator_client.runner_loop.event_requests import size_of
from coordinator_client.tasks.execution import TaskExecution
from coordinator_client.tasks.run import TaskRun
from coordinator_client.tasks.task import Task
from coordinator_client.types import ClaimedRun, NewEvent
from runner.results import ResultRefused, checked
from tests.support.local_execution import RUN, Recorder


class EncodingRecorder(Recorder):
    """Coordinator whose events are encoded as for a request."""

    async def happened(self, run: ClaimedRun, events: list[NewEvent]) -> bool:
        size_of(events)
        return await super().happened(run, events)


class LockedRecorder(Recorder):
    """Coordinator to which no event can be brought."""

    async def happened(self, run: ClaimedRun, events: list[NewEvent]) -> bool:
        raise LookupError("no way")


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


async def perform(function: Any, recorder: Recorder) -> Recorder:
    execution = TaskExecution(
        cast("ClaimedRun", {**RUN, "demands": {"tags": ["task:t"]}}),
        Task("t", function),
        recorder,
        user_loop=asyncio.get_running_loop(),
        stop_grace_seconds=5,
        pause=pytest.fail,
    )
    await execution.perform()
    return recorder


async def test_each_depth_of_a_result_has_an_end() -> None:
    """Return results that fewer and fewer of the steps from the function to the request can encode."""
    for levels in range(900, 1000):

        async def deep(parameters: dict[str, Any], run: TaskRun, levels: int = levels) -> Any:
            return nested(levels)

        recorder = await perform(deep, EncodingRecorder())
        (report,) = recorder.reports
        assert (report["outcome"] == "completed") == (len(recorder.results) == 1), levels


async def test_error_of_the_delivery_fails_the_run() -> None:
    """End the function too, which would wait for ever for its events to be taken."""

    def talk(parameters: dict[str, Any], run: TaskRun) -> None:
        run.log("something")
        assert run.wait_until_cancelled(600)

    recorder = await perform(talk, LockedRecorder())
    assert [report["outcome"] for report in recorder.reports] == ["failed"]
    assert recorder.reports[0]["error"] == "[runner] LookupError: no way"


async def test_runtime_error_of_the_runner_does_not_give_the_run_back() -> None:
    class Execution(TaskExecution):
        async def _conclude(self, result: Any) -> Any:
            raise RecursionError("too deep")

    recorder = Recorder()
    run = cast("ClaimedRun", {**RUN, "demands": {"tags": ["task:t"]}})
    loop = asyncio.get_running_loop()
    task = Task("t", lambda parameters, run: None)
    await Execution(run, task, recorder, user_loop=loop, stop_grace_seconds=5, pause=pytest.fail).perform()
    assert recorder.reports[0]["error"] == "[runner] RecursionError: too deep"


def test_result_of_a_command_that_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(ResultRefused, match="cannot be sent"):
        checked({"result_text": None, "result_data": nested(100_000)})
