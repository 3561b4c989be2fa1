import time

# Linux: CLOCK_MONOTONIC, which time.monotonic() and every timer of asyncio use, stands still in suspend; CLOCK_BOOTTIME
# goes on. macOS: time.monotonic() (mach_absolute_time) stands still, clock_gettime's CLOCK_MONOTONIC goes on.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed() -> float:
    """Return seconds since a fixed moment in the past, suspended time included."""
    return time.clock_gettime(_CLOCK)
