import hashlib
import os
import threading
import time


class _Clock:
    """Millisecond and counter of the last id, so that ids of one process never go backwards."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.milliseconds = 0
        self.counter = 0


_clock = _Clock()


def uuid7() -> str:
    """Return a UUIDv7 as 32 hex digits; strictly increasing within one process."""
    with _clock.lock:
        now = time.time_ns() // 1_000_000
        if now > _clock.milliseconds:
            _clock.milliseconds = now
            _clock.counter = int.from_bytes(os.urandom(4), "big") >> 2
        else:
            _clock.counter += 1
            if _clock.counter >= 1 << 32:
                _clock.milliseconds += 1
                _clock.counter = 0
        milliseconds, counter = _clock.milliseconds, _clock.counter
    # 48 bits of time, version, 12 + 20 bits of counter around the variant, 42 bits of chance
    high = (milliseconds << 16) | 0x7000 | (counter >> 20)
    low = (0b10 << 62) | ((counter & 0xFFFFF) << 42) | (int.from_bytes(os.urandom(6), "big") >> 6)
    return f"{high:016x}{low:016x}"


def new_id(prefix: str) -> str:
    return prefix + uuid7()


def runner_identity(
    hostname: str, project_dir: str, executor_profile: str, command: str | None, owner: str | None = None
) -> str:
    """Return the id of a runner: the same for the same four properties (PROTOCOL, Runners).

    With an ``owner`` return the id of that owner's runner beside another owner's that has the plain one. The length
    keeps the two kinds apart.
    """
    identity = f"{hostname}:{project_dir}:{executor_profile}:{command or ''}"
    prefix, digits = ("", 12) if owner is None else (f"{owner}\x1f", 24)
    return "lnch_" + hashlib.sha256((prefix + identity).encode("utf-8", "replace")).hexdigest()[:digits]
