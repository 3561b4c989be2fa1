"""Rolling restart of `coordinator up` (SIGHUP): replicas are replaced one by one, without an interruption.

Each step is written to the data directory, for the caller of scripts/rolling_deploy.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from devserver.console import Console
from devserver.embedded_server import log_of
from devserver.supervisor import CannotServe, Child, Supervisor

START_SECONDS = 60.0  # time for a new process to become ready


class Step(StrEnum):
    """Kinds of progress. FINISHED, STOPPED and BUSY are the last line of an order."""

    BEGUN = "begun"
    STARTING = "starting"
    REPLACED = "replaced"
    FINISHED = "finished"
    STOPPED = "stopped"
    BUSY = "busy"


@dataclass(frozen=True)
class Progress:
    step: Step
    process: str
    text: str


def progress_file(data_dir: Path) -> Path:
    return log_of(data_dir, "rolling")


def lock_of(data_dir: Path) -> Path:
    return data_dir / "run" / "up.lock"


class Rolling:
    def __init__(self, supervisor: Supervisor, data_dir: Path, console: Console) -> None:
        self._supervisor = supervisor
        self._data_dir = data_dir
        self._console = console
        self._migrate: Callable[[], Awaitable[None]] | None = None
        self._build: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._building: asyncio.Task[None] | None = None

    def allow(
        self, migrate: Callable[[], Awaitable[None]], build: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        """Allow restarts from now on. Each first calls `migrate`, for the schema of the new code; once all are
        replaced, `build` runs beside them, for its console.
        """
        self._migrate, self._build = migrate, build

    def ask(self) -> None:
        if self._migrate is None:
            self._note(Step.BUSY, "up", "no rolling restart: it is only just starting")
        elif self._task and not self._task.done():
            self._note(Step.BUSY, "up", "no other rolling restart: one is under way")
        else:
            self._task = asyncio.create_task(self._roll(self._migrate))

    async def stop(self) -> None:
        tasks = [task for task in (self._task, self._building) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _roll(self, migrate: Callable[[], Awaitable[None]]) -> None:
        children = sorted(filter(_is_replica, self._supervisor.children), key=_place)
        self._note(Step.BEGUN, "up", f"rolling restart of {', '.join(child.service.name for child in children)}")
        try:
            await migrate()
        except (CannotServe, OSError) as error:
            self._note(Step.STOPPED, "up", f"rolling restart stopped, nothing was replaced: {error}")
            return
        for number, child in enumerate(children):
            fault = await self._replace(child)
            if fault:
                text = (
                    f"rolling restart stopped after {number} of {len(children)}: the new {child.service.name} {fault}"
                )
                self._note(Step.STOPPED, "up", f"{text}; the former one stays")
                return
        self._note(Step.FINISHED, "up", f"rolling restart finished: {len(children)} replaced")
        if self._build is not None and (self._building is None or self._building.done()):
            self._building = asyncio.create_task(self._build())

    async def _replace(self, child: Child) -> str:
        name, former = child.service.name, child.pid
        self._note(Step.STARTING, name, "starting its successor")
        fault = await self._supervisor.replace(child, START_SECONDS)
        if not fault:
            by = next(other.pid for other in self._supervisor.children if other.service.name == name)
            self._note(Step.REPLACED, name, f"replaced: process {former} by {by}")
        return fault

    def _note(self, step: Step, process: str, text: str) -> None:
        self._console.say(process, text)
        with progress_file(self._data_dir).open("a") as file:
            file.write(json.dumps(asdict(Progress(step, process, text))) + "\n")


def _is_replica(child: Child) -> bool:
    return child.service.name.startswith(("web-", "worker-"))


def _place(child: Child) -> tuple[str, int]:
    kind, _, number = child.service.name.partition("-")
    return kind, int(re.sub(r"\D", "", number))
