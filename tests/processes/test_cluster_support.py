"""Processes that other tests start."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from devserver.supervisor import ROOT
from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.coordination import is_alive


def test_processes_start_are_watched_and_end(cluster: Cluster) -> None:
    """Start a web and a worker on this test's own servers; both become ready, and end in order when told to."""
    web, worker = cluster.start_web(), cluster.start_worker()
    for process in (web, worker):
        process.terminate()
        assert process.wait() == 0


def test_process_that_fails_to_start_reports_its_output(cluster: Cluster) -> None:
    """Put its last lines into the failure, since its log goes with the test."""
    with pytest.raises(AssertionError, match="COORDINATOR_POLL_TIMEOUT_SECONDS"):
        cluster.start_web(poll_timeout_seconds=-1)


INTERRUPTED = """
import subprocess, sys, time
from testkit.cluster import Cluster
from testkit.servers import new_directory, scratch_directory
with scratch_directory() as path:
    cluster = Cluster(new_directory(path, "cluster"), "postgresql+psycopg://127.0.0.1:1/x", "redis://127.0.0.1:1/0")
    web = cluster.start_web(wait=False)
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    print(web.pid, other.pid, path, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_interrupted_test_process_leaves_nothing_behind(number: signal.Signals) -> None:
    """Remove servers with a pid file, processes without one and the scratch directory soon after it."""
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        web, other, path = process.stdout.readline().split()
        assert is_alive(int(web))
        process.send_signal(number)
        process.wait(30)
    eventually(lambda: not (is_alive(int(web)) or is_alive(int(other))), 30, what="the end of its processes")
    eventually(lambda: not Path(path.decode()).exists(), 30, what="the end of its directory")
