import asyncio
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol, cast
from uuid import uuid4

from coordinator_client.runner_loop.event_log import log
from coordinator_client.runner_loop.outbox import Outbox
from coordinator_client.types import ClaimedRun, NewEvent, Outcome, Report

# Bytes of an event besides its text, roughly.
EVENT_SIZE = 256


class Reason(StrEnum):
    STOP = "stop"  # ordered by the coordinator: reported as stopped
    LEAVING = "leaving"  # the runner leaves: not reported, so that the run goes on elsewhere
    LOST = "lost"  # the claim is lost: killed at once, nothing is reported


class Reporter(Protocol):
    """Destination of a run's reports and events. Each call returns True once accepted, False when the claim is lost."""

    async def started(self, run: ClaimedRun) -> bool: ...
    async def bound(self, run: ClaimedRun) -> bool: ...
    async def happened(self, run: ClaimedRun, events: list[NewEvent]) -> bool: ...
    async def ended(self, run: ClaimedRun, report: Report) -> bool: ...


class RunExecution(Protocol):
    """Execution of one claimed run.

    Attributes:
        run: The run.
        is_started: True once its start was accepted.
        has_begun: True once its work has begun.
    """

    run: ClaimedRun
    is_started: bool

    @property
    def has_begun(self) -> bool: ...

    def end(self, reason: Reason) -> None:
        """End the work; return at once."""

    async def perform(self) -> None:
        """Execute the run; return when its end was accepted or the claim is lost. Cancelling ends the work at once."""


class DeliveredExecution(ABC):
    """Execution of one claimed run, from `started` to the report of its end.

    The work begins after `started` was accepted; the end is reported after every event was accepted, in order.
    """

    def __init__(self, run: ClaimedRun, reporter: Reporter) -> None:
        self.run = run
        self.is_started = False
        self._reporter = reporter
        self._reason: Reason | None = None
        self._ending: asyncio.Task[None] | None = None
        self._outbox = Outbox(self._send)
        self._key = uuid4().hex
        self._count = 0

    @abstractmethod
    def end(self, reason: Reason) -> None: ...

    @abstractmethod
    def _refuse(self) -> Report | None:
        """Return the report of a run that cannot be executed here."""

    @abstractmethod
    async def _execute(self) -> Report | None:
        """Do the work; return the report of its end, None when nothing is to be reported."""

    async def perform(self) -> None:
        """Execute the run; return when its end was accepted or the claim is lost. Cancelling ends the work at once."""
        if (refusal := self._refuse()) is not None:
            await self._reporter.ended(self.run, refusal)
            return
        if not await self._reporter.started(self.run):
            return
        self.is_started = True
        delivery = asyncio.create_task(self._deliver())
        try:
            report = await self._conclusion(delivery)
            if report is not None:
                await self._reporter.ended(self.run, report)
        finally:
            self._outbox.refuse()
            delivery.cancel()
            if self._ending is not None:
                self._ending.cancel()

    async def _conclusion(self, delivery: asyncio.Task[bool]) -> Report | None:
        """Return the report of the end once every event was accepted.

        An error of our own fails the run: without a report it would be running for ever.
        """
        try:
            report = await self._execute()
        except Exception as error:  # noqa: BLE001 - reported
            report = self._report_own(error)
        self._outbox.close()
        try:
            return report if await delivery else None
        except Exception as error:  # noqa: BLE001 - reported
            return self._report_own(error)

    def _report_own(self, error: Exception) -> Report:
        log.error("execution_failed", run_id=self.run["run_id"], exc_info=error)
        text = "".join(traceback.format_exception_only(error)).strip()
        return self._report("failed", error=f"[runner] {text}")

    async def _deliver(self) -> bool:
        try:
            accepted = await self._prepare_delivery() and await self._outbox.deliver()
        except Exception:
            self.end(Reason.LOST)
            raise
        if not accepted:
            self.end(Reason.LOST)
        return accepted

    async def _prepare_delivery(self) -> bool:
        return True

    async def _send(self, events: list[NewEvent]) -> bool:
        return await self._reporter.happened(self.run, events)

    async def _tell(self, event_type: str, fields: Mapping[str, Any], timestamp: str, size: int) -> None:
        await self._outbox.put(self._event(event_type, fields, timestamp), size + EVENT_SIZE)

    def _event(self, event_type: str, fields: Mapping[str, Any], timestamp: str) -> NewEvent:
        event = {
            "event_type": event_type,
            "session_id": self.run["session_id"],
            "timestamp": timestamp,
            "event_key": f"{self._key}-{self._count}",
            **fields,
        }
        self._count += 1
        return cast("NewEvent", event)

    def _report(self, outcome: Outcome, *, error: str | None = None) -> Report:
        report: Report = {
            "run_id": self.run["run_id"],
            "claim_token": self.run["claim_token"],
            "outcome": outcome,
        }
        if error is not None:
            report["error"] = error
        return report
