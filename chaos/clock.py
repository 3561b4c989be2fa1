"""Clock fault of a single process, by a hook that every new Python process of the cluster runs first.

The hook wraps `time.time` and `time.time_ns`, which the product reads (the ids of stored rows are made with them); the
product does not know of it. The offset stands in a file named by the pid, so that one process can be chosen.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_HOOK = """
import os, time
_PLACE, _TIME, _TIME_NS, _SEEN = {place!r}, time.time, time.time_ns, [0.0, 0]

def _offset():
    now = time.monotonic()
    if now > _SEEN[0]:
        try:
            with open(f"{{_PLACE}}/{{os.getpid()}}") as file:
                _SEEN[1] = int(file.read())
        except (OSError, ValueError):
            _SEEN[1] = 0
        _SEEN[0] = now + 0.1
    return _SEEN[1]

time.time = lambda: _TIME() + _offset()
time.time_ns = lambda: _TIME_NS() + _offset() * 1_000_000_000
"""


def install(directory: Path) -> Path:
    (directory / "sitecustomize.py").write_text(_HOOK.format(place=str(directory)))
    return directory


@contextmanager
def skewed(directory: Path, processes: Iterable[psutil.Process], seconds: int) -> Iterator[None]:
    files = [directory / str(process.pid) for process in processes]
    for file in files:
        file.write_text(str(seconds))
    try:
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)
