import asyncio
from asyncio import StreamReader
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

from runner.output import Role, RunOutput
from runner.process import READ_SIZE

# Processes left by an ended process may hold its output open. It is read until nothing came for LEFTOVER_SECONDS; from
# those that write on, until READS_AFTER_END reads or WAIT_AFTER_END_SECONDS of waiting.
LEFTOVER_SECONDS: Final = 0.5
READS_AFTER_END: Final = 64
WAIT_AFTER_END_SECONDS: Final = 10.0


class Reading:
    def __init__(self, output: RunOutput) -> None:
        self._output = output
        self._is_over = False
        self._left = READS_AFTER_END * READ_SIZE
        self._telling = 0
        self._heard_at = 0.0
        self._is_cut = False

    def end(self) -> None:
        self._is_over = True
        self._heard_at = monotonic()

    async def read(self, role: Role, stream: StreamReader) -> None:
        waited = 0.0
        while not self._is_enough(waited):
            began = monotonic()
            try:
                async with asyncio.timeout(self._patience(role)):
                    data = await stream.read(READ_SIZE)
            except TimeoutError:
                data = None
            waited += (monotonic() - began) * self._is_over
            if data == b"":
                break
            if data:
                self._heard_at = monotonic()
                self._left -= len(data) * self._is_over
            with self._while_telling():
                await (self._output.take(role, data) if data else self._output.show(role))
        else:
            await self._say_what_is_left_out(waited)
        await self._output.finish(role)

    def _patience(self, role: Role) -> float:
        wait = self._output.seconds_left(role)
        return min(wait, self._silence_left()) if self._is_over else wait

    def _silence_left(self) -> float:
        """Return the seconds of silence still allowed; time in which the other pipe's output is sent does not count."""
        if self._telling:
            return LEFTOVER_SECONDS
        return max(0.0, self._heard_at + LEFTOVER_SECONDS - monotonic())

    def _is_enough(self, waited: float) -> bool:
        return self._is_over and (not self._silence_left() or self._left <= 0 or waited >= WAIT_AFTER_END_SECONDS)

    async def _say_what_is_left_out(self, waited: float) -> None:
        if not self._is_cut and (self._left <= 0 or waited >= WAIT_AFTER_END_SECONDS):
            self._is_cut = True
            await self._output.notice("The command has ended, but left processes that write on: that is not read")

    @contextmanager
    def _while_telling(self) -> Iterator[None]:
        began = monotonic()
        self._telling += 1
        try:
            yield
        finally:
            self._telling -= 1
            self._heard_at = min(monotonic(), self._heard_at + monotonic() - began)
