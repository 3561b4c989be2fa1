import asyncio
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from coordinator_client.client import CoordinatorClient
from coordinator_client.requests import Identity
from coordinator_client.runner_loop.executions import Reporter
from coordinator_client.runner_loop.loop import STOP_GRACE_SECONDS, LoopOptions, RunnerLoop
from coordinator_client.types import ClaimedRun
from runner.descendants import Descendants
from runner.executor import Command, Execution
from runner.orphans import OrphanNotes
from runner.readiness import Readiness
from runner.slots import Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """Options of a runner.

    `grace_seconds` is the time that runs have after a drain (None: to their end), `stop_grace_seconds` the time between
    SIGTERM and SIGKILL, `most_output_bytes` the bytes of a run's output that are sent (None: all).
    """

    urls: Sequence[str]
    command: Sequence[str]
    profile: str
    hostname: str
    project_dir: str
    executor_type: str = "autonomous"
    tags: tuple[str, ...] = ()
    require_matching_tags: bool = False
    concurrency: int = 1
    grace_seconds: float | None = None
    stop_grace_seconds: float = STOP_GRACE_SECONDS
    most_output_bytes: int | None = None
    token: str | None = None
    slot: Slot | None = None
    ca_file: str = ""

    def identity(self) -> Identity:
        return Identity(
            hostname=self.hostname,
            project_dir=self.project_dir,
            executor_profile=self.profile,
            executor_type=self.executor_type,
            command=" ".join(self.command),
            tags=self.tags,
            require_matching_tags=self.require_matching_tags,
            capacity=self.concurrency,
            instance_id=uuid4().hex,
        )

    def loop_options(self) -> LoopOptions:
        return LoopOptions(
            identity=self.identity(),
            concurrency=self.concurrency,
            grace_seconds=self.grace_seconds,
            stop_grace_seconds=self.stop_grace_seconds,
            slot=self.slot,
        )


class Runner:
    """Runner that executes each run as a process of its command."""

    def __init__(self, options: RunnerOptions, client: CoordinatorClient) -> None:
        self._descendants = Descendants(OrphanNotes())
        self._readiness = Readiness(options.command, options.project_dir, self._pause)
        self._command = Command(
            options.command,
            options.project_dir,
            self._descendants,
            stop_grace_seconds=options.stop_grace_seconds,
            most_output_bytes=options.most_output_bytes,
            readiness=self._readiness,
        )
        self._loop = RunnerLoop(options.loop_options(), client, self._begin, self._readiness.check)

    def check(self) -> None:
        if trouble := self._readiness.check():
            raise ValueError(trouble)

    def drain(self) -> None:
        self._loop.drain()

    async def serve(self) -> None:
        """Run until drained. Raises RegistrationRefused when the coordinator will never accept this runner."""
        self._descendants.start()
        try:
            await self._loop.serve()
        finally:
            self._descendants.close()

    def _begin(self, run: ClaimedRun, reporter: Reporter) -> Execution:
        return Execution(run, self._command, reporter)

    def _pause(self, reason: str) -> None:
        self._loop.pause(reason)


async def run_runner(options: RunnerOptions) -> None:
    """Run a runner as this process: SIGTERM, Ctrl-C or a closed terminal drains it; a second signal ends it.

    An ignored hang-up (`nohup`) stays ignored. Raises RegistrationRefused; ValueError when no run could be executed
    here.
    """
    async with CoordinatorClient(
        options.urls, token=options.token, ca_file=options.ca_file, patience_seconds=0
    ) as client:
        runner = Runner(options, client)
        runner.check()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, runner.drain)
        await runner.serve()
