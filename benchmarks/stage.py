import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson
import psutil

from benchmarks.cluster import Cluster, Servers, running
from benchmarks.figures import Figures
from benchmarks.meter import BEGINS, ENDS
from benchmarks.usage import Usage
from devserver.supervisor import ROOT
from models.schema.migrate import upgrade

Processes = Mapping[str, Sequence[psutil.Process]]


class LoadFailed(Exception):
    pass


@dataclass
class Stage:
    servers: Servers
    directory: Path
    quick: bool
    repetitions: int
    cpu: list[Figures] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return 4 if self.quick else 10

    @contextmanager
    def cluster(
        self, *, web: int = 2, workers: int = 2, settings: Mapping[str, str] | None = None
    ) -> Iterator[Cluster]:
        with running(self.servers, self.directory, web=web, workers=workers, settings=settings) as cluster:
            yield cluster

    def repeat(self, cluster: Cluster, load: str, **arguments: Any) -> list[Figures]:
        return [self.run(cluster, load, **arguments) for _ in range(self.repetitions)]

    def run(
        self, cluster: Cluster, load: str, *, watch: Callable[[], Figures] | None = None, **arguments: Any
    ) -> dict[str, float]:
        """Run one load in a generator of its own; return its measurements, and each part's CPU as `cpu_…`.

        `watch` is read at both ends of the window: its growth a second is added under its names, and its readings as
        `first_…` and `last_…`. Raises LoadFailed.
        """
        window = Window(cluster.processes, watch)
        figures = generate(load, {"urls": cluster.urls, **arguments}, window)
        self.cpu.append(window.cpu)
        return {**figures, **{f"cpu_{name}": share for name, share in window.cpu.items()}, **window.watched}

    def raw(self, load: str, **arguments: Any) -> dict[str, float]:
        """Run a load of `loads_raw` on an empty database of the same server, with no process of the coordinator beside
        it.

        Returns the best of three, also when quick: a limit slowed by another process's fsync is none.
        """
        url = self.servers.fresh_database()
        upgrade(url.replace("postgresql://", "postgresql+psycopg://", 1))
        tries = [generate(load, {"urls": [url], "seconds": self.seconds / 2, **arguments}) for _ in range(3)]
        return max(tries, key=lambda figures: figures["rate"])


class Window:
    def __init__(self, processes: Callable[[], Processes], watch: Callable[[], Figures] | None = None) -> None:
        self._processes = processes
        self._watch = watch or dict
        self.cpu: dict[str, float] = {}
        self.watched: dict[str, float] = {}

    def begin(self, generator: psutil.Process) -> None:
        self._first = self._watch()
        self._usage = Usage({**self._processes(), "generator": [generator]})

    def end(self, generator: psutil.Process) -> None:
        self.cpu = self._usage.shares({**self._processes(), "generator": [generator]})
        seconds = self._usage.elapsed()
        for name, last in self._watch().items():
            self.watched[name] = (last - self._first[name]) / seconds
            self.watched |= {f"first_{name}": self._first[name], f"last_{name}": last}


def generate(load: str, job: Mapping[str, Any], window: Window | None = None) -> dict[str, float]:
    with started(load, job) as generator:
        return measured(load, generator, window)


def measured(load: str, generator: "subprocess.Popen[bytes]", window: Window | None = None) -> dict[str, float]:
    last = _follow(generator, window)
    if generator.wait() or not last:
        raise LoadFailed(f"{load} ended with {generator.returncode}")
    figures: dict[str, float] = orjson.loads(last)
    return figures


@contextmanager
def started(
    load: str,
    job: Mapping[str, Any],
    command: Sequence[str] = (sys.executable, "-m", "benchmarks.generator"),
    env: Mapping[str, str] | None = None,
    errors: IO[bytes] | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, cwd=ROOT, env=env) as generator:
        try:
            if generator.stdin:
                generator.stdin.write(orjson.dumps({"load": load, **job}))
                generator.stdin.close()
            yield generator
        except BaseException:
            generator.kill()
            raise


def _follow(generator: "subprocess.Popen[bytes]", window: Window | None) -> bytes:
    if generator.stdout is None:
        raise ValueError(generator)
    itself = psutil.Process(generator.pid)
    for line in generator.stdout:
        text = line.decode().strip()
        if text not in {BEGINS, ENDS}:
            return line
        if window is not None:
            (window.begin if text == BEGINS else window.end)(itself)
    return b""


def load_average() -> float:
    return os.getloadavg()[0]
