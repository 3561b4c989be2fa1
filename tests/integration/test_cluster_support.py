"""The processes that other tests are made of."""

import pytest

from tests.support.cluster import Cluster


def test_processes_start_are_watched_and_end(cluster: Cluster) -> None:
    """A web and a worker become ready on this test's own servers, and end in order when told to."""
    web, worker = cluster.start_web(), cluster.start_worker()
    for process in (web, worker):
        process.terminate()
        assert process.wait() == 0


def test_a_process_that_does_not_come_up_says_why(cluster: Cluster) -> None:
    """Its last words are in the failure, not in a file that is gone with the test."""
    with pytest.raises(AssertionError, match="COORDINATOR_POLL_TIMEOUT_SECONDS"):
        cluster.start_web(poll_timeout_seconds=-1)
