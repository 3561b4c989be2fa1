"""Executes one claimed run: its command as a process, its lines as events, its end as a report."""

import asyncio
import os
import signal
from asyncio import StreamReader
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import uuid4

from runner.descendants import Descendants
from runner.lines import LineSplitter, in_pieces, may_be_result, read_result
from runner.outbox import Outbox
from runner.process import LEFTOVER_SECONDS, READ_SIZE, Process
from runner.shapes import ClaimedRun, Event, Outcome, Report
from runner.transport import encode

# A pipe is looked at this often though nothing came: a JSON line that was kept back as a possible result is told then,
# and an ended process's pipe that someone else holds open is given up.
QUIET_SECONDS = 0.5
# Reads of an ended process's pipe. Far more than it can hold; one who writes on for ever is not listened to.
READS_AFTER_END = 64
ERROR_TAIL_LINES = 20
ERROR_TAIL_LENGTH = 8 * 1024
# Roughly what an event weighs besides its text.
EVENT_SIZE = 256
# As who the runner speaks is not for a command, which is other people's.
_SECRETS = ("COORDINATOR_TOKEN", "COORDINATOR_TOKEN_FILE")


class Reporter(Protocol):
    """Where a run's news go. Each call returns once it was accepted (True), or the run is not ours any more (False)."""

    async def started(self, run: ClaimedRun) -> bool: ...
    async def bound(self, run: ClaimedRun) -> bool: ...
    async def happened(self, run: ClaimedRun, events: list[Event]) -> bool: ...
    async def ended(self, run: ClaimedRun, report: Report) -> bool: ...


class Reason(StrEnum):
    """Why a process is ended before it ends by itself."""

    STOP = "stop"  # asked for: reported as stopped
    LEAVING = "leaving"  # the runner goes: not reported, so that the run goes on elsewhere
    LOST = "lost"  # not ours any more: killed at once, nothing is reported


@dataclass(frozen=True, slots=True)
class Command:
    """What is started for each run, and where."""

    arguments: Sequence[str]
    directory: str
    descendants: Descendants | None = None


class Execution:
    """One claimed run from `started` to its end report.

    The process begins after `started` was accepted; the end report is sent after every line was accepted, in order.
    Memory is bounded: a process that prints faster than the coordinator takes waits in its pipe.
    """

    def __init__(self, run: ClaimedRun, command: Command, reporter: Reporter) -> None:
        self.run = run
        self.is_started = False
        self._command = command
        self._reporter = reporter
        self._reason: Reason | None = None
        self._process: Process | None = None
        self._ending: asyncio.Task[None] | None = None
        self._is_over = False
        self._outbox = Outbox(self._send)
        self._key = uuid4().hex
        self._count = 0
        self._error_tail: deque[str] = deque(maxlen=ERROR_TAIL_LINES)
        self._kept_back: tuple[str, str] | None = None

    def end(self, reason: Reason) -> None:
        """End the process if it still runs: SIGTERM, after 5 s SIGKILL, to its whole group; SIGKILL at once when lost.

        A process that has ended by itself is still reported as it ended, unless the run is lost.
        """
        if self._reason is None or reason is Reason.LOST:
            self._reason = reason
        if reason is Reason.LOST:
            self._outbox.refuse()
        process = self._process
        if process is None or process.exit_code is not None:
            return
        if reason is Reason.LOST:
            process.signal_group(signal.SIGKILL)
        if self._ending is None:
            self._ending = asyncio.create_task(process.end())

    async def perform(self) -> None:
        """Execute the run; returns when its end was accepted, or it is not ours any more. Cancelling kills it."""
        if not await self._reporter.started(self.run):
            return
        self.is_started = True
        delivery = asyncio.create_task(self._deliver())
        try:
            report = await self._execute()
            self._outbox.close()
            if await delivery and report is not None:
                await self._reporter.ended(self.run, report)
        finally:
            self._outbox.refuse()
            delivery.cancel()
            if self._ending is not None:
                self._ending.cancel()

    async def _deliver(self) -> bool:
        """Bind the session, then send events as they come; False when the run is not ours any more."""
        accepted = await self._reporter.bound(self.run) and await self._outbox.deliver()
        if not accepted:
            self.end(Reason.LOST)
        return accepted

    async def _send(self, events: list[Event]) -> bool:
        return await self._reporter.happened(self.run, events)

    async def _execute(self) -> Report | None:
        """Start the process and attend to it until it has ended; what to report, None for nothing."""
        if self._reason:
            return self._report_ended_by_us(0)
        try:
            self._process = await Process.start(
                self._command.arguments,
                environment=child_environment(self.run),
                directory=self._command.directory,
                descendants=self._command.descendants,
            )
        except (OSError, ValueError) as error:
            return self._report("failed", error=f"Cannot start {self._command.arguments[0]}: {error}")
        try:
            self._end_if_asked_meanwhile()
            return await self._attend(self._process)
        finally:
            await self._process.close()

    def _end_if_asked_meanwhile(self) -> None:
        if self._reason is not None:
            self.end(self._reason)

    async def _attend(self, process: Process) -> Report | None:
        given = asyncio.create_task(process.write(encode(_for_process(self.run)) + b"\n"))
        readers = [
            asyncio.create_task(self._read(process, process.stdout, self._take_output)),
            asyncio.create_task(self._read(process, process.stderr, self._take_error)),
        ]
        try:
            await process.exited()
            if self._ending is not None:
                await self._ending
            await asyncio.wait(readers, timeout=LEFTOVER_SECONDS)
            process.signal_group(signal.SIGKILL)
            self._is_over = True
            await asyncio.gather(*readers)
        finally:
            for task in (given, *readers):
                task.cancel()
        return await self._conclude(process.exit_code or 0)

    async def _conclude(self, exit_code: int) -> Report | None:
        """Tell the line that was kept back, as the result if all went well; what to report."""
        is_well = exit_code == 0 and self._ending is None
        await self._tell_kept_back(as_result=is_well)
        if self._ending is not None:
            return self._report_ended_by_us(exit_code)
        if exit_code == 0:
            return self._report("completed")
        cause = f"killed by {_signal_name(exit_code)}" if exit_code < 0 else f"exit code {exit_code}"
        tail = "\n".join(self._error_tail)[-ERROR_TAIL_LENGTH:]
        return self._report("failed", error=f"{cause}\n{tail}" if tail else cause)

    async def _read(self, process: Process, stream: StreamReader, take: Callable[[str], Awaitable[None]]) -> None:
        """Read the pipe to its end, and take its lines one by one."""
        splitter = LineSplitter()
        reads_left = READS_AFTER_END
        while reads_left:
            is_over = self._is_over
            reads_left -= is_over
            try:
                async with asyncio.timeout(QUIET_SECONDS):
                    data = await stream.read(READ_SIZE)
            except TimeoutError:
                if is_over:
                    break
                if stream is process.stdout:
                    await self._tell_kept_back(as_result=False)
                continue
            if not data:
                break
            for line in splitter.feed(data):
                await take(line)
        for line in splitter.finish():
            await take(line)

    async def _take_output(self, line: str) -> None:
        await self._tell_kept_back(as_result=False)
        if may_be_result(line):
            self._kept_back = (line, _now())
        else:
            await self._tell_line("assistant", line, _now())

    async def _take_error(self, line: str) -> None:
        self._error_tail.append(line[-ERROR_TAIL_LENGTH:])
        await self._tell_line("system", line, _now())

    async def _tell_kept_back(self, *, as_result: bool) -> None:
        if self._kept_back is None:
            return
        (line, timestamp), self._kept_back = self._kept_back, None
        result = read_result(line) if as_result else None
        if result is None:
            for piece in in_pieces(line):
                await self._tell_line("assistant", piece, timestamp)
        else:
            text = result.get("result_text")
            fields: Event = {"result_data": result, "result_text": text if isinstance(text, str) else None}
            await self._tell("result", fields, timestamp, len(line))

    async def _tell_line(self, role: str, line: str, timestamp: str) -> None:
        content = [{"type": "text", "text": line}]
        await self._tell("message", {"role": role, "content": content}, timestamp, len(line))

    async def _tell(self, event_type: str, fields: Event, timestamp: str, size: int) -> None:
        event: Event = {
            "event_type": event_type,
            "session_id": self.run["session_id"],
            "timestamp": timestamp,
            "event_key": f"{self._key}-{self._count}",
            **fields,
        }
        self._count += 1
        await self._outbox.put(event, size + EVENT_SIZE)

    def _report_ended_by_us(self, exit_code: int) -> Report | None:
        if self._reason is not Reason.STOP:
            return None
        report = self._report("stopped")
        report["signal"] = _signal_name(exit_code) if exit_code < 0 else "SIGTERM"
        return report

    def _report(self, outcome: Outcome, *, error: str | None = None) -> Report:
        report: Report = {
            "run_id": self.run["run_id"],
            "claim_token": self.run["claim_token"],
            "outcome": outcome,
        }
        if error is not None:
            report["error"] = error
        return report


def child_environment(run: ClaimedRun) -> dict[str, str]:
    """What the process inherits from the runner, and which run it is."""
    inherited = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    return {
        **inherited,
        "COORDINATOR_RUN_ID": run["run_id"],
        "COORDINATOR_RUN_SESSION_ID": run["session_id"],
        "COORDINATOR_RUN_ATTEMPT": str(run.get("attempt", 1)),
    }


def _for_process(run: ClaimedRun) -> dict[str, Any]:
    """The run without the token: who runs the command is the runner's affair, who may report on the run is not."""
    return {key: value for key, value in run.items() if key != "claim_token"}


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _signal_name(exit_code: int) -> str:
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"
