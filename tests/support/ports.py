"""Ports of one test process alone: whatever is to listen there, or is away and comes back, finds its port free."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from itertools import cycle
from pathlib import Path

from runtime.processes import PORTS, Locked, locked, port_is_free

# Below those that `free_port` gives to servers of the product.
_STRETCHES = range(PORTS.start // 2, PORTS.start, 500)
_held = ExitStack()


def own_port() -> int:
    """A free port that no other test process takes, nor this one again soon."""
    return next(port for port in _ports() if port_is_free(port))


def own_ports(number: int) -> int:
    """The first of so many free ones in a row."""
    while True:
        ports = [own_port() for _ in range(number)]
        if ports[-1] - ports[0] == number - 1:
            return ports[0]


@cache
def _ports() -> Iterator[int]:
    for first in _STRETCHES:
        lock = Path(tempfile.gettempdir()) / f"coordinator-test-ports-{os.getuid()}-{first}.lock"
        try:
            # Until this process ends, however it ends.
            _held.enter_context(locked(lock))
        except Locked:
            continue
        return cycle(range(first, first + _STRETCHES.step))
    raise OSError("as many other test processes as there are ports for run already")
