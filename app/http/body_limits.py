import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar

from app.writes.attempts import Unavailable

Parsed = TypeVar("Parsed")

# Bytes of each body that are not counted: a connection may buffer as many in any case.
UNCOUNTED_BYTES: Final = 64 * 1024
# Threads that parse larger bodies.
PARSED_AT_ONCE: Final = 2
PARSED_INLINE_BYTES: Final = 64 * 1024
UPLOAD: Final = "coordinator.upload"


@dataclass(slots=True, eq=False)
class Upload:
    """Bytes of one request's body, counted for the process and for its caller ("" while authentication is off)."""

    uploads: "Uploads"
    caller: str
    size: int = 0

    async def take(self, size: int) -> None:
        await self.uploads.take(self, size)

    def release(self) -> None:
        self.uploads.release(self)


@dataclass(slots=True)
class _Held:
    size: int = 0
    uploads: dict[Upload, None] = field(default_factory=dict)

    def may_take(self, upload: Upload, size: int, most: int) -> bool:
        """Return whether the upload may hold more; the oldest always may, so that every upload ends."""
        return self.size + size <= most or upload is next(iter(self.uploads))


class Uploads:
    """Bodies of a process: at most ``most`` bytes together, and half of that for one caller.

    Beyond that a body is not read on, so that its sender waits. The oldest one is read on whatever the others hold.
    """

    def __init__(self, most: int, patience_seconds: float) -> None:
        self._most = most
        self.patience_seconds = patience_seconds
        self._all = _Held()
        self._callers: dict[str, _Held] = {}
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def held(self) -> int:
        return self._all.size

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def take(self, upload: Upload, size: int) -> None:
        held = (self._all, self._callers.setdefault(upload.caller, _Held()))
        for total in held:
            total.uploads.setdefault(upload)
        deadline = asyncio.get_running_loop().time() + self.patience_seconds
        while not self._may_take(upload, size):
            await self._change(deadline)
        upload.size += size
        for total in held:
            total.size += size

    def release(self, upload: Upload) -> None:
        if upload not in self._all.uploads:
            return
        for total in (self._all, self._callers[upload.caller]):
            del total.uploads[upload]
            total.size -= upload.size
        if not self._callers[upload.caller].uploads:
            del self._callers[upload.caller]
        for changed in self._waiting:
            if not changed.done():
                changed.set_result(None)

    def _may_take(self, upload: Upload, size: int) -> bool:
        if not self._all.may_take(upload, size, self._most):
            return False
        return not upload.caller or self._callers[upload.caller].may_take(upload, size, self._most // 2)

    async def _change(self, deadline: float) -> None:
        changed = asyncio.get_running_loop().create_future()
        self._waiting.add(changed)
        try:
            async with asyncio.timeout_at(deadline):
                await changed
        except TimeoutError:
            raise Unavailable from None
        finally:
            self._waiting.discard(changed)


class BodyParser:
    """Parser of bodies: those over 64 KiB in one of two threads, so that the event loop goes on."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(PARSED_AT_ONCE, thread_name_prefix="body-parser")

    async def run(self, parse: Callable[[bytes], Parsed], raw: bytes) -> Parsed:
        if len(raw) <= PARSED_INLINE_BYTES:
            return parse(raw)
        return await asyncio.get_running_loop().run_in_executor(self._threads, parse, raw)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
