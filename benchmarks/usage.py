from collections.abc import Mapping, Sequence
from time import perf_counter

import psutil


class Usage:
    def __init__(self, groups: Mapping[str, Sequence[psutil.Process]]) -> None:
        self._groups = groups
        self._began_at = perf_counter()
        self._spent = {name: _seconds(processes) for name, processes in groups.items()}

    def elapsed(self) -> float:
        return perf_counter() - self._began_at

    def shares(self, now: Mapping[str, Sequence[psutil.Process]]) -> dict[str, float]:
        elapsed = self.elapsed()
        shares = {}
        for name, processes in now.items():
            spent = sum(_seconds(processes).values())
            before = sum(self._spent.get(name, {}).values())
            shares[name] = max(0.0, 100 * (spent - before) / elapsed)
        return shares


def _seconds(processes: Sequence[psutil.Process]) -> dict[int, float]:
    """Return CPU seconds by pid. Those of an ended Postgres backend are in its parent's time of reaped children."""
    spent = {}
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        spent[process.pid] = times.user + times.system + times.children_user + times.children_system
    return spent
