import asyncio
import os
import signal
from asyncio.subprocess import PIPE, SubprocessStreamProtocol
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from time import monotonic
from uuid import uuid4

from runner.descendants import Descendants
from runner.guard import MARK

# Interval of the check for a group's end, which sends no signal.
GROUP_LOOK_SECONDS = 0.05

READ_SIZE = 64 * 1024


class _Protocol(SubprocessStreamProtocol):
    """Protocol that reports the process's exit at once; asyncio's own wait() may also wait for its pipes to close."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=READ_SIZE, loop=loop)
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()


class Process:
    """Running command; `exit_code` is negative for a signal, as in `subprocess`."""

    def __init__(
        self, transport: asyncio.SubprocessTransport, protocol: _Protocol, descendants: Descendants | None, mark: str
    ) -> None:
        if protocol.stdout is None or protocol.stderr is None:
            raise ValueError("a process without pipes")
        self._transport = transport
        self._protocol = protocol
        self.pid = transport.get_pid()
        self.stdout = protocol.stdout
        self.stderr = protocol.stderr
        self._descendants = descendants
        if descendants is not None:
            descendants.begun(self.pid, mark)

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: str,
        descendants: Descendants | None = None,
    ) -> "Process":
        """Start the command with pipes, as the leader of a new process group, and register it with `descendants`.

        Raises OSError or ValueError.
        """
        loop = asyncio.get_running_loop()
        mark = uuid4().hex
        with nullcontext() if descendants is None else descendants.starting(mark):
            transport, protocol = await loop.subprocess_exec(
                lambda: _Protocol(loop),
                *command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env={**environment, MARK: mark},
                cwd=directory,
                start_new_session=True,
            )
            return cls(transport, protocol, descendants, mark)

    @property
    def exit_code(self) -> int | None:
        return self._transport.get_returncode()

    async def write(self, data: bytes) -> None:
        stdin = self._protocol.stdin
        if stdin is None:
            return
        with suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(data)
            await stdin.drain()
        stdin.close()

    async def exited(self) -> None:
        await self._protocol.exited.wait()

    def signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def end(self, grace_seconds: float) -> None:
        """Send SIGTERM to the group and to descendants outside it; after the grace SIGKILL to the rest of the group."""
        self.signal_group(signal.SIGTERM)
        for pid in [] if self._descendants is None else self._descendants.outside(self.pid):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)
        deadline = monotonic() + grace_seconds
        while self._group_lives() and monotonic() < deadline:  # noqa: ASYNC110 - a group's end sets no event
            await asyncio.sleep(GROUP_LOOK_SECONDS)
        self.signal_group(signal.SIGKILL)
        await self.exited()

    def _group_lives(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    async def close(self) -> None:
        self.signal_group(signal.SIGKILL)
        await self.exited()
        self._transport.close()
        if self._descendants is not None:
            await self._descendants.ended(self.pid)
