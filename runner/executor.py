import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coordinator_client.runner_loop.executions import DeliveredExecution, Reason, Reporter
from coordinator_client.runner_loop.loop import STOP_GRACE_SECONDS
from coordinator_client.trace_context import VARIABLE as TRACEPARENT
from coordinator_client.trace_context import checked_traceparent
from coordinator_client.transport import encode
from coordinator_client.types import ClaimedRun, Report
from runner.descendants import Descendants
from runner.output import RunOutput
from runner.process import Process
from runner.readiness import Readiness
from runner.reading import Reading
from runner.results import ResultFile, ResultRefused

# Never passed to a command: it could act as the runner.
_SECRETS = ("COORDINATOR_TOKEN", "COORDINATOR_TOKEN_FILE")
# Of the runner's own trace: a command continues that of its run, or none.
# Nominal time of a run that a schedule submitted, for its command.
FIRE_AT = "COORDINATOR_RUN_FIRE_AT"
_TRACE = (TRACEPARENT, "TRACESTATE")


@dataclass(frozen=True, slots=True)
class Command:
    arguments: Sequence[str]
    directory: str
    descendants: Descendants | None = None
    stop_grace_seconds: float = STOP_GRACE_SECONDS
    most_output_bytes: int | None = None
    readiness: Readiness | None = None


class Execution(DeliveredExecution):
    """Execution of one claimed run by a process.

    Memory is bounded: a process that prints faster than the coordinator accepts blocks on its pipe.
    """

    def __init__(self, run: ClaimedRun, command: Command, reporter: Reporter) -> None:
        super().__init__(run, reporter)
        self._command = command
        self._process: Process | None = None
        self._output = RunOutput(self._tell, most_bytes=command.most_output_bytes)

    @property
    def has_begun(self) -> bool:
        return self._process is not None

    def end(self, reason: Reason) -> None:
        """End the process and its group: SIGTERM, after the grace SIGKILL; SIGKILL at once when the claim is lost.

        A process that has already ended is reported as it ended, unless the claim is lost.
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
            self._ending = asyncio.create_task(process.end(self._command.stop_grace_seconds))

    def _refuse(self) -> Report | None:
        trouble = self._command.readiness and self._command.readiness.check()
        return self._give_back(trouble) if trouble else None

    async def _prepare_delivery(self) -> bool:
        return await self._reporter.bound(self.run)

    async def _execute(self) -> Report | None:
        if self._reason:
            return self._report_ended_by_us(0)
        result_file = None
        try:
            result_file = ResultFile()
            self._process = await Process.start(
                self._command.arguments,
                environment=child_environment(self.run, result_file.path),
                directory=self._command.directory,
                descendants=self._command.descendants,
            )
            self._end_if_asked_meanwhile()
            return await self._attend(self._process, result_file)
        except (OSError, ValueError) as error:
            if self._process is not None:
                raise
            cause = f"Cannot start {self._command.arguments[0]}: {error}"
            return self._give_back(cause) if isinstance(error, OSError) else self._report("failed", error=cause)
        finally:
            if self._process is not None:
                await self._process.close()
            if result_file is not None:
                result_file.close()

    def _end_if_asked_meanwhile(self) -> None:
        if self._reason is not None:
            self.end(self._reason)

    async def _attend(self, process: Process, result_file: ResultFile) -> Report | None:
        reading = Reading(self._output)
        tasks = [
            asyncio.create_task(process.write(encode(_for_process(self.run)) + b"\n")),
            asyncio.create_task(reading.read("assistant", process.stdout)),
            asyncio.create_task(reading.read("system", process.stderr)),
        ]
        try:
            await process.exited()
            if self._ending is not None:
                await self._ending
            reading.end()
            # Read also the output of processes that the command left running; they are killed after that.
            await asyncio.gather(*tasks[1:])
        finally:
            for task in tasks:
                task.cancel()
        return await self._conclude(process.exit_code or 0, result_file)

    async def _conclude(self, exit_code: int, result_file: ResultFile) -> Report | None:
        if exit_code == 0 and self._ending is None:
            try:
                await self._output.conclude(result_file)
            except ResultRefused as refused:
                await self._output.give_up()
                return self._report("failed", error=str(refused))
            return self._report("completed")
        await self._output.give_up()
        if self._ending is not None:
            return self._report_ended_by_us(exit_code)
        cause = f"killed by {_signal_name(exit_code)}" if exit_code < 0 else f"exit code {exit_code}"
        tail = self._output.error_tail
        report = self._report("failed", error=f"{cause}\n{tail}" if tail else cause)
        report["exit_code"] = exit_code
        return report

    def _report_ended_by_us(self, exit_code: int) -> Report | None:
        if self._reason is not Reason.STOP:
            return None
        report = self._report("stopped")
        report["signal"] = _signal_name(exit_code) if exit_code < 0 else "SIGTERM"
        return report

    def _give_back(self, reason: str) -> Report:
        if self._command.readiness is not None:
            self._command.readiness.troubled(reason)
        report = self._report("released")
        report["reason"] = reason
        return report


def child_environment(run: ClaimedRun, result_file: str) -> dict[str, str]:
    left_out = {*_SECRETS, *_TRACE, FIRE_AT}
    inherited = {name: value for name, value in os.environ.items() if name not in left_out}
    trace = checked_traceparent(run.get("traceparent"))
    labels = run.get("labels") or {}
    fire_at = labels.get("fire_at") if "schedule" in labels else None
    return {
        **inherited,
        **({} if trace is None else {TRACEPARENT: trace}),
        **({} if fire_at is None else {FIRE_AT: fire_at}),
        "COORDINATOR_RUN_ID": run["run_id"],
        "COORDINATOR_RUN_SESSION_ID": run["session_id"],
        "COORDINATOR_RUN_ATTEMPT": str(run.get("attempt", 1)),
        "COORDINATOR_RUN_RESULT_FILE": result_file,
    }


def _for_process(run: ClaimedRun) -> dict[str, Any]:
    """Return the run without its claim token: a command must not report on the run."""
    return {key: value for key, value in run.items() if key != "claim_token"}


def _signal_name(exit_code: int) -> str:
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"
