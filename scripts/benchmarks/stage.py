"""Where a row is measured: starts the cluster it needs, runs loads against it, and keeps account of the CPU."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psutil

from cli.supervisor import ROOT
from scripts.benchmarks.cluster import Cluster, Servers, running
from scripts.benchmarks.figures import Figures
from scripts.benchmarks.meter import BEGINS, ENDS
from scripts.benchmarks.usage import Usage


class LoadFailed(Exception):
    """A load met an answer that it did not expect; the message is what it said."""


@dataclass
class Stage:
    """What rows are given. ``quick`` makes them smaller and shorter, once each instead of ``repetitions`` times."""

    servers: Servers
    directory: Path
    quick: bool
    repetitions: int
    cpu: list[Figures] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The usual length of a window."""
        return 4 if self.quick else 10

    @contextmanager
    def cluster(
        self, *, web: int = 2, workers: int = 2, settings: Mapping[str, str] | None = None
    ) -> Iterator[Cluster]:
        """A ready cluster on an empty database."""
        with running(self.servers, self.directory, web=web, workers=workers, settings=settings) as cluster:
            yield cluster

    def run(self, cluster: Cluster, load: str, **arguments: Any) -> dict[str, float]:
        """Run one load in a generator of its own; what it measured. Raises LoadFailed."""
        job = {"load": load, "urls": cluster.urls, **arguments}
        command = [sys.executable, "-m", "scripts.benchmarks.generator"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as generator:
            measured = b""
            try:
                measured = self._follow(cluster, generator, job)
            finally:
                if generator.poll() is None and not measured:
                    generator.kill()
            if generator.wait() or not measured:
                raise LoadFailed(f"{load} ended with {generator.returncode}")
        figures: dict[str, float] = orjson.loads(measured)
        return figures

    def _follow(self, cluster: Cluster, generator: "subprocess.Popen[bytes]", job: dict[str, Any]) -> bytes:
        """Feed the generator, account for the CPU between its two marks; its last line."""
        if generator.stdin is None or generator.stdout is None:
            raise ValueError(generator)
        with generator.stdin as stdin:
            stdin.write(orjson.dumps(job))
        itself = psutil.Process(generator.pid)
        usage: Usage | None = None
        for line in generator.stdout:
            match line.strip().decode():
                case "":
                    continue
                case text if text == BEGINS:
                    usage = Usage({**cluster.processes(), "generator": [itself]})
                case text if text == ENDS:
                    if usage is not None:
                        self.cpu.append(usage.shares({**cluster.processes(), "generator": [itself]}))
                case _:
                    return line
        return b""


def load_average() -> float:
    """Of the last minute."""
    return os.getloadavg()[0]
