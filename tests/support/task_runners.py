"""Start task runners as processes of a cluster."""

import os
import subprocess
import sys
from pathlib import Path

from devserver.supervisor import ROOT
from testkit.cluster import Cluster, Process, inherited


def start_program(cluster: Cluster, *arguments: str, waits_for: str = "") -> Process:
    """Start Python with these arguments in a process that ends with the cluster; wait for a text of its log."""
    name = f"runner-program-{len(cluster.processes)}"
    log_file = cluster.directory / f"{name}.log"
    env = {**inherited("PATH", "HOME", "LANG"), "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    with log_file.open("wb") as log, Path(os.devnull).open("rb") as nothing:
        popen = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=nothing,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cluster.directory,
            start_new_session=True,
        )
    process = Process(name, popen, log_file)
    cluster.processes.append(process)
    cluster.wait_until(process, lambda: waits_for in process.log(), waits_for)
    return process


def start_task_runner(cluster: Cluster, *urls: str, notes: Path) -> Process:
    """Start the program of `tests/support/sample_tasks.py` and wait until both its registrations are accepted."""
    process = start_program(cluster, "-m", "tests.support.sample_tasks", str(notes), *urls, waits_for="registered")
    cluster.wait_until(process, lambda: process.log().count("registered runner_id=") == 2, "both registrations")
    return process
