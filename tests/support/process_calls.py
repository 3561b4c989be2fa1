"""Program that calls a function in a process: `python -m tests.support.process_calls FUNCTION DIRECTORY IMPORT`.

The process does IMPORT while it imports this program: `end`, `interrupt` (Ctrl-C in its group) or `wait` (until the
program has asked the function to end). Print the outcome as `OUTCOME: …`.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from coordinator_client.tasks.processes import ProcessCall
from coordinator_client.tasks.run import TaskRun
from coordinator_client.tasks.task import Task

FUNCTION, DIRECTORY, IMPORT = sys.argv[1:4]
ASKED = Path(DIRECTORY, "asked")


def answer(parameters: dict[str, Any], run: TaskRun) -> int:
    return len(parameters["text"])


def until_cancelled(parameters: dict[str, Any], run: TaskRun) -> None:
    while not run.wait_until_cancelled(600):
        pass
    run.raise_if_cancelled()


def leave_fork(parameters: dict[str, Any], run: TaskRun) -> None:
    """End by SIGKILL and leave a process that holds the pipe and ends with its group alone."""
    if os.fork() == 0:
        signal.pause()
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    signal.signal(signal.SIGINT, lambda *_: None)
    task = Task(FUNCTION, globals()[FUNCTION], in_process=True)
    call = ProcessCall(task, {"text": "x" * 200_000}, {"run_id": "run_1"}, lambda *_: None)
    if IMPORT == "wait":
        call.cancel()
        ASKED.touch()
    try:
        result = call.outcome.result()
        outcome = str(result and result["result_data"])
    except Exception as error:  # noqa: BLE001 - printed
        outcome = f"{type(error).__name__} {error}"
    sys.stdout.write(f"OUTCOME: {outcome}\n")


if __name__ == "__mp_main__":
    match IMPORT:
        case "end":
            os._exit(7)
        case "interrupt":
            os.killpg(0, signal.SIGINT)
        case "wait":
            while not ASKED.exists():
                time.sleep(0.02)
if __name__ == "__main__":
    main()
