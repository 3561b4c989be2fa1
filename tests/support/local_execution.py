"""Execute one run without a coordinator, and record what it reports."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast

from coordinator_client.types import ClaimedRun, NewEvent, Report
from runner.executor import Command, Execution

RUN = cast(
    "ClaimedRun",
    {
        "run_id": "run_1",
        "session_id": "ses_1",
        "attempt": 2,
        "parameters": {"prompt": "hällo"},
        "claim_token": "secret",
    },
)


class Recorder:
    """Coordinator that records its calls; `refuse` names those that it refuses, `hold` delays events."""

    def __init__(self, refuse: str = "") -> None:
        self.refuse = refuse
        self.told: list[str] = []
        self.events: list[NewEvent] = []
        self.reports: list[Report] = []
        self.open = asyncio.Event()
        self.open.set()

    async def _note(self, what: str) -> bool:
        self.told.append(what)
        return what != self.refuse

    async def started(self, run: ClaimedRun) -> bool:
        return await self._note("started")

    async def bound(self, run: ClaimedRun) -> bool:
        return await self._note("bound")

    async def happened(self, run: ClaimedRun, events: list[NewEvent]) -> bool:
        await self.open.wait()
        self.events += events
        return await self._note("events")

    async def ended(self, run: ClaimedRun, report: Report) -> bool:
        self.reports.append(report)
        return await self._note(report["outcome"])

    @property
    def lines(self) -> list[str]:
        """Return the texts of all messages."""
        return [event["content"][0]["text"] for event in self.events if event["event_type"] == "message"]

    def said(self, role: str = "assistant") -> str:
        """Return all output of this role, joined as docs/clients.md says, without the runner's own notices."""
        blocks = [event["content"][0] for event in self.events if event.get("role") == role]
        return "".join(block["text"] + "\n" * (not block.get("partial")) for block in blocks if not block.get("notice"))

    @property
    def notices(self) -> list[str]:
        """Return the runner's own notices."""
        blocks = [event["content"][0] for event in self.events if event["event_type"] == "message"]
        return [block["text"] for block in blocks if block.get("notice")]

    @property
    def results(self) -> list[NewEvent]:
        return [event for event in self.events if event["event_type"] == "result"]


class SlowRecorder(Recorder):
    """Coordinator that is slow to answer each request of events."""

    async def happened(self, run: ClaimedRun, events: list[NewEvent]) -> bool:
        await asyncio.sleep(0.02)
        return await super().happened(run, events)


def execution(recorder: Recorder, script: str, *arguments: str, **options: Any) -> Execution:
    """Execute a Python script as the command, with unbuffered output."""
    return Execution(RUN, Command([sys.executable, "-uc", script, *arguments], "/", **options), recorder)


async def perform_shell(script: str, recorder: Recorder | None = None, **options: Any) -> Recorder:
    """Execute a shell script as the command, from its start to its end."""
    recorder = recorder or Recorder()
    await Execution(RUN, Command(["bash", "-c", script], "/", **options), recorder).perform()
    return recorder


async def perform(script: str, *arguments: str, refuse: str = "") -> Recorder:
    """Execute a Python script from its start to its end."""
    recorder = Recorder(refuse)
    await execution(recorder, script, *arguments).perform()
    return recorder


def as_coroutine(condition: Callable[[], Any]) -> Callable[[], Awaitable[bool]]:
    """Wrap the condition as `eventually_async` needs it."""

    async def ask() -> bool:
        return bool(condition())

    return ask
