"""More clients than a web process has connections for: the surplus waits in the backlog, nobody is reset or refused."""

import signal
from contextlib import ExitStack

import httpx

from tests.support.cluster import Cluster
from tests.support.surplus_scenarios import CLIENTS, MOST, Crowd, shared_socket, start_on, the_surplus_waits


def test_surplus_connections_wait_until_others_have_ended(cluster: Cluster) -> None:
    """A deployed runner survives no three resets in a row, and takes a 503 for one."""
    the_surplus_waits(cluster.start_web(most_connections=MOST).url)


def test_who_waits_is_served_by_a_full_process_that_drains(cluster: Cluster) -> None:
    """To the end of the drain its clients go, one after the other, and others take their place."""
    web = cluster.start_web(most_connections=MOST, drain_seconds=4)
    with ExitStack() as held:
        crowd = Crowd(web.url, held)
        crowd.until_answered(MOST)
        web.terminate()
        crowd.leave(MOST)
        crowd.until_answered(CLIENTS)
    assert web.wait() == 0


def test_who_waits_for_a_full_process_is_served_by_its_successor(cluster: Cluster) -> None:
    """The backlog is the socket's, whoever accepts there; the former one takes nobody more, though there is room."""
    with shared_socket() as listener, ExitStack() as held:
        former = start_on(cluster, listener, most_connections=MOST, drain_seconds=20)
        crowd = Crowd(former.url, held)
        crowd.until_answered(MOST)
        successor = start_on(cluster, listener, "--successor", most_connections=CLIENTS)
        former.signal(signal.SIGUSR1)
        crowd.until_answered(CLIENTS)
        crowd.leave(MOST)
        assert former.wait() == 0
        assert httpx.get(successor.url + "/health", timeout=10).status_code == 200
        assert successor.alive


def test_of_two_processes_on_one_socket_the_one_with_room_goes_on(cluster: Cluster) -> None:
    """A full one takes nothing from it, and its own clients keep it."""
    with shared_socket() as listener, ExitStack() as held:
        for _ in range(2):
            start_on(cluster, listener, most_connections=MOST)
        crowd = Crowd(cluster.processes[0].url, held)
        crowd.until_answered(2 * MOST)
        assert crowd.look() == 2 * MOST
        crowd.leave(MOST)
        crowd.until_answered(CLIENTS)
