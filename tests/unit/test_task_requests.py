"""Requests, parameters and results of tasks."""

import json
import sys
from dataclasses import fields
from typing import Any, cast, get_type_hints

import pytest

from coordinator_client.requests import RunRequest
from coordinator_client.tasks import RunCancelled, Task, TaskOptions, TaskRun, TaskRunner, run, task_request
from coordinator_client.tasks.outcomes import TaskFailed, call, result_of
from coordinator_client.tasks.requests import parameters_of, task_of
from coordinator_client.types import Run

URL = "http://127.0.0.1:9"
Told = tuple[str, Any]


def a_run(prompt: str = "{}", tags: list[str] | None = None) -> Run:
    demands = {"tags": ["task:resize"] if tags is None else tags}
    return cast("Run", {"run_id": "run_1", "session_id": "s", "parameters": {"prompt": prompt}, "demands": demands})


def noted() -> tuple[TaskRun, list[Told]]:
    told: list[Told] = []
    return TaskRun({"run_id": "run_1"}, lambda kind, content, _: told.append((kind, content))), told


def test_request_demands_task_and_tags_of_the_runner() -> None:
    request = task_request(
        "resize", {"width": 3}, tags=("gpu",), additional_demands={"hostname": "h", "tags": ["x"]}, priority=5
    )
    assert request == RunRequest(
        parameters={"prompt": '{"width": 3}'},
        agent_name="task:resize",
        additional_demands={"hostname": "h", "tags": ["task:resize", "task-runner:gpu", "x"]},
        priority=5,
    )


def test_options_of_a_task_are_fields_of_a_submission() -> None:
    """Leave out those that say which task it is."""
    given = {"parameters", "agent_name"}
    hints = get_type_hints(RunRequest)
    assert get_type_hints(TaskOptions) == {
        field.name: hints[field.name] for field in fields(RunRequest) if field.name not in given
    }


@pytest.mark.parametrize("name", ["", "x" * 124], ids=["empty", "too long"])
def test_name_that_is_no_tag_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 123 characters"):
        task_request(name)
    with pytest.raises(ValueError, match="1 to 123 characters"):
        TaskRunner(URL).task(name)


@pytest.mark.parametrize("value", [float("nan"), object()], ids=["NaN", "object"])
def test_parameter_that_is_no_json_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError), match="JSON"):
        task_request("resize", {"value": value})


@pytest.mark.parametrize("text", ["ü\u2028", "\ud800", "a\x00b", "\x1b[1m"])
def test_parameters_arrive_as_they_were(text: str) -> None:
    request = task_request("resize", {"text": text, "more": [1, None, {"x": 2.5}]})
    prompt = json.loads(json.dumps(request.body()))["parameters"]["prompt"]
    prompt.encode()
    assert parameters_of(a_run(prompt)) == {"text": text, "more": [1, None, {"x": 2.5}]}


@pytest.mark.parametrize("prompt", ["make it smaller", "[1]", "3", "[" * 100_000])
def test_prompt_that_is_no_object_is_the_parameter(prompt: str) -> None:
    """Accept runs that a person submitted."""
    assert parameters_of(a_run(prompt)) == {"prompt": prompt}


def test_task_of_a_run_is_the_one_it_demands() -> None:
    assert task_of(a_run(tags=["task:resize", "task-runner:gpu"])) == "resize"
    with pytest.raises(ValueError, match="demands no task"):
        task_of(a_run(tags=["task-runner:gpu"]))
    with pytest.raises(ValueError, match="demands 2 tasks"):
        task_of(a_run(tags=["task:a", "task:b"]))


def test_values_are_results() -> None:
    assert result_of(None) is None
    assert result_of("done") == {"result_text": "done", "result_data": None}
    assert result_of({"result_text": "done", "n": (1, 2)}) == {
        "result_text": "done",
        "result_data": {"result_text": "done", "n": [1, 2]},
    }
    assert result_of([1]) == {"result_text": None, "result_data": [1]}


class Odd(dict[str, int]):
    """Dictionary that json cannot read."""

    def items(self) -> Any:
        raise LookupError("no items")


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", [object(), float("inf"), {1, 2}, Odd(a=1), nested(100_000)])
def test_value_that_is_no_json_fails_the_run(value: object) -> None:
    with pytest.raises(TaskFailed, match="no JSON value"):
        result_of(value)


def test_too_large_result_fails_the_run() -> None:
    with pytest.raises(TaskFailed, match="Result too large: 4194306 bytes, at most 4194304"):
        result_of("x" * 4 * 1024 * 1024)


def test_error_of_function_is_told_with_its_own_frames() -> None:
    context, told = noted()

    def fail(parameters: dict[str, Any], run: TaskRun) -> None:
        raise ValueError("too wide")

    with pytest.raises(TaskFailed, match=r"^ValueError: too wide$") as failed:
        call(fail, {}, context)
    assert (failed.value.error_class, failed.value.exit_code) == ("ValueError", None)
    ((kind, content),) = told
    assert (kind, content["role"]) == ("message", "system")
    shown = content["content"][0]["text"]
    assert shown.startswith("Traceback")
    assert "in fail" in shown
    assert "outcomes.py" not in shown


def test_exit_of_function_fails_its_run_alone() -> None:
    context, _ = noted()
    with pytest.raises(TaskFailed, match="SystemExit: 3") as failed:
        call(lambda *_: sys.exit(3), {}, context)
    assert (failed.value.error_class, failed.value.exit_code) == ("SystemExit", 3)


def test_error_after_a_cancellation_is_the_cancellation() -> None:
    """Count what a function raises once it was told to end as its end."""
    context, told = noted()

    def end(parameters: dict[str, Any], run: TaskRun) -> None:
        run.cancel()
        assert run.wait_until_cancelled(0)
        run.raise_if_cancelled()

    with pytest.raises(RunCancelled):
        call(end, {}, context)
    assert told == []


def test_progress_is_bounded_and_its_last_value_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PROGRESS_SECONDS", 3600)
    context, told = noted()
    context._shown_at = -3600.0
    for step in range(5):
        context.progress(step / 4, f"step {step}")
    context.finish()
    context.finish()
    assert [content["content"][0] for _, content in told] == [
        {"type": "text", "text": "0% step 0", "progress": 0.0},
        {"type": "text", "text": "100% step 4", "progress": 1.0},
    ]


def test_function_that_cannot_be_a_task_is_refused() -> None:
    runner = TaskRunner(URL)
    with pytest.raises(TypeError, match="must take the parameters and the run"):
        runner.task("a")(lambda: 1)  # type: ignore[arg-type] # as a user writes it
    with pytest.raises(ValueError, match="at the top of a module"):
        runner.task("b", in_process=True)(lambda parameters, run: 1)
    with pytest.raises(ValueError, match="at least 1"):
        runner.task("c", concurrency=0)(lambda parameters, run: 1)
    task = runner.task("d")(lambda parameters, run: parameters["x"])
    assert task({"x": 5}, noted()[0]) == 5
    with pytest.raises(ValueError, match="exists"):
        runner.task("d")
    with pytest.raises(ValueError, match="needs a task"):
        TaskRunner(URL).serve()


def test_task_keeps_its_fields_beside_attributes_of_its_function() -> None:
    """Decorate twice, and functions that have attributes of the same names."""
    runner = TaskRunner(URL)

    @runner.task("outer", concurrency=2)
    @runner.task("inner", concurrency=1)
    def inner(parameters: dict[str, Any], run: TaskRun) -> int:
        return int(parameters["x"])

    assert (inner.name, inner.concurrency) == ("outer", 2)
    assert inner.function is inner.__wrapped__  # type: ignore[attr-defined] # as update_wrapper leaves it
    assert not isinstance(inner.function, Task)

    def named(parameters: dict[str, Any], run: TaskRun) -> None: ...

    named.name = "other"  # type: ignore[attr-defined] # as some decorators do
    assert runner.task("named")(named).request().agent_name == "task:named"


def test_too_many_tags_are_refused() -> None:
    """Refuse what no coordinator would accept, before anything is connected."""
    runner = TaskRunner(URL, tags=("gpu",))
    for number in range(64):
        runner.task(f"task {number}")(lambda parameters, run: 1)
    runner.task("alone", concurrency=1)(lambda parameters, run: 1)
    with pytest.raises(ValueError, match="are 65, at most 64: give some tasks a concurrency"):
        runner.serve()
