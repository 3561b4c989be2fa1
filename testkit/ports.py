"""Ports of one test process alone, for listeners that may be away for a while."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from itertools import cycle
from pathlib import Path

from runtime.processes import PORTS, Locked, locked, port_is_free

# Use ports below those that `free_port` gives to servers of the product.
_RANGES = range(PORTS.start // 2, PORTS.start, 500)
# Browsers open no page there (the Fetch standard, section Port blocking).
_BLOCKED_BY_BROWSERS = frozenset({10080})
_held = ExitStack()


def own_port() -> int:
    """Return a free port that no other test process takes, nor this one again soon."""
    return next(port for port in _ports() if port_is_free(port))


def own_ports(number: int) -> int:
    """Return the first of so many consecutive free ones."""
    while True:
        ports = [own_port() for _ in range(number)]
        if ports[-1] - ports[0] == number - 1:
            return ports[0]


@cache
def _ports() -> Iterator[int]:
    for first in _RANGES:
        lock = Path(tempfile.gettempdir()) / f"coordinator-test-ports-{os.getuid()}-{first}.lock"
        try:
            # Hold the lock until this process ends, however it ends.
            _held.enter_context(locked(lock))
        except Locked:
            continue
        return cycle(sorted(set(range(first, first + _RANGES.step)) - _BLOCKED_BY_BROWSERS))
    raise OSError("as many other test processes as there are ports for run already")
