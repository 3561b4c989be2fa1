import json
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Final

from coordinator_client.tasks.run import RunCancelled, TaskRun
from coordinator_client.types import Result

# As for `coordinator runner`.
MOST_RESULT_BYTES: Final = 4 * 1024 * 1024


class TaskFailed(Exception):
    """Raised when the function failed, or returned what is no result; the message becomes the run's error.

    `error_class` names the class of the function's exception, `exit_code` that of `exit()` or of its process.
    """

    def __init__(self, error: str, *, error_class: str | None = None, exit_code: int | None = None) -> None:
        super().__init__(error)
        self.error_class = error_class
        self.exit_code = exit_code


class CannotStart(Exception):
    """Raised when this machine cannot begin the function: the run is given back."""


def call(function: Callable[[dict[str, Any], TaskRun], Any], parameters: dict[str, Any], run: TaskRun) -> Result | None:
    """Return the result of the function. Raises TaskFailed, or RunCancelled after a cancellation."""
    try:
        value = function(parameters, run)
    except BaseException as error:  # noqa: BLE001 - also exit() ends this run alone
        raise _ended_by(error, run) from None
    return _concluded(value, run)


async def call_async(
    function: Callable[[dict[str, Any], TaskRun], Awaitable[Any]], parameters: dict[str, Any], run: TaskRun
) -> Result | None:
    """Do the same for a coroutine function; one that is cancelled raises CancelledError, which counts as its end."""
    try:
        value = await function(parameters, run)
    except BaseException as error:  # noqa: BLE001 - also exit() and a cancellation end this run alone
        raise _ended_by(error, run) from None
    return _concluded(value, run)


def _ended_by(error: BaseException, run: TaskRun) -> Exception:
    run.finish()
    if run.cancelled:
        return RunCancelled()
    # The first frame is ours.
    frames = error.__traceback__ and error.__traceback__.tb_next
    run.log("".join(traceback.format_exception(type(error), error, frames)).rstrip(), error=True)
    code = error.code if isinstance(error, SystemExit) else None
    return TaskFailed(
        "".join(traceback.format_exception_only(error)).strip(),
        error_class=class_name(error),
        exit_code=code if isinstance(code, int) else None,
    )


def class_name(error: BaseException) -> str:
    """Return the class with its module, but for those of Python itself and of the program."""
    kind = type(error)
    own = kind.__module__ in {"builtins", "__main__", "__mp_main__"}
    return kind.__qualname__ if own else f"{kind.__module__}.{kind.__qualname__}"


def _concluded(value: Any, run: TaskRun) -> Result | None:
    run.finish()
    return result_of(value)


def result_of(value: Any) -> Result | None:
    """Return the value as a result: a text is its text, another JSON value its data. Raises TaskFailed."""
    if value is None:
        return None
    try:
        text = json.dumps(value, allow_nan=False)
        data = json.loads(text) if len(text) <= MOST_RESULT_BYTES else None
    except Exception as error:  # noqa: BLE001 - also what the value's own methods raise
        raise TaskFailed(f"The result is no JSON value: {error}") from None
    if len(text) > MOST_RESULT_BYTES:
        raise TaskFailed(f"Result too large: {len(text)} bytes, at most {MOST_RESULT_BYTES}")
    if isinstance(value, str):
        return {"result_text": value, "result_data": None}
    shown = data.get("result_text") if isinstance(data, dict) else None
    return {"result_text": shown if isinstance(shown, str) else None, "result_data": data}
