"""Program of a task runner: `python -m tests.support.sample_tasks FILE URL...` appends each run it begins to FILE."""

import asyncio
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from coordinator_client.tasks import TaskRun, TaskRunner

runner = TaskRunner(sys.argv[2:], tags=("gpu",), concurrency=4, stop_grace_seconds=0.3)


@runner.task("resize")
def resize(parameters: dict[str, Any], run: TaskRun) -> dict[str, Any]:
    run.log("reading")
    run.progress(0.5, "half")
    run.log("writing", error=True)
    return {"width": parameters["width"] * 2}


@runner.task("fail")
def fail(parameters: dict[str, Any], run: TaskRun) -> None:
    raise ValueError("too wide")


@runner.task("once")
def once(parameters: dict[str, Any], run: TaskRun) -> int:
    with Path(sys.argv[1]).open("a") as file:
        file.write(f"{run.run_id}\n")
    return int(parameters["number"])


@runner.task("thread")
def in_thread(parameters: dict[str, Any], run: TaskRun) -> None:
    run.log(f"pid {os.getpid()}")
    if run.wait_until_cancelled(600):
        run.log("cancelled")


@runner.task("loop")
async def on_loop(parameters: dict[str, Any], run: TaskRun) -> None:
    run.log(f"pid {os.getpid()}")
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        run.log("cancelled")
        raise


@runner.task("process", in_process=True)
def in_process(parameters: dict[str, Any], run: TaskRun) -> None:
    run.log(f"pid {os.getpid()}")
    if run.wait_until_cancelled(600):
        run.log("cancelled")
        run.raise_if_cancelled()


@runner.task("deaf", in_process=True)
def ignoring(parameters: dict[str, Any], run: TaskRun) -> None:
    run.log(f"pid {os.getpid()}")
    time.sleep(600)


@runner.task("blocking")
async def blocking(parameters: dict[str, Any], run: TaskRun) -> str:
    time.sleep(parameters["seconds"])  # noqa: ASYNC251 - the mistake that heartbeats must survive
    return "survived"


@runner.task("threaded")
async def threaded(parameters: dict[str, Any], run: TaskRun) -> None:
    run.log(f"pid {os.getpid()}")
    await asyncio.to_thread(time.sleep, 600)


@runner.task("computed", in_process=True)
def computed(parameters: dict[str, Any], run: TaskRun) -> list[int]:
    run.progress(1)
    return [os.getpid(), os.getppid()]


@runner.task("alone", concurrency=1)
def alone(parameters: dict[str, Any], run: TaskRun) -> None:
    run.log(f"pid {os.getpid()}")
    # Until the test makes the file.
    while not Path(parameters["file"]).exists() and not run.wait_until_cancelled(0.02):
        pass


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    runner.serve()
