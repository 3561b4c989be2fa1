"""More clients than a web process has connections for: the surplus waits in the backlog, neither reset nor refused."""

import signal
from contextlib import ExitStack

import httpx

from tests.support.cluster import Cluster
from tests.support.surplus_scenarios import CLIENTS, MOST, Crowd, shared_socket, start_on, surplus_clients_wait


def test_surplus_connections_wait_until_others_have_ended(cluster: Cluster) -> None:
    """Refuse none: a deployed runner survives no three resets in a row, and counts a 503 as one."""
    surplus_clients_wait(cluster.start_web(most_connections=MOST).url)


def test_waiting_clients_are_served_during_drain_of_full_process(cluster: Cluster) -> None:
    """Let its clients go one after the other to the end of the drain; waiting ones take their place."""
    web = cluster.start_web(most_connections=MOST, drain_seconds=4)
    with ExitStack() as held:
        crowd = Crowd(web.url, held)
        crowd.until_answered(MOST)
        web.terminate()
        crowd.leave(MOST)
        crowd.until_answered(CLIENTS)
    assert web.wait() == 0


def test_waiting_clients_of_full_process_are_served_by_successor(cluster: Cluster) -> None:
    """Share the socket and so its backlog; the former process accepts no more, though it has free places."""
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


def test_process_with_free_places_accepts_from_shared_socket(cluster: Cluster) -> None:
    """Keep the full process and its clients unaffected."""
    with shared_socket() as listener, ExitStack() as held:
        for _ in range(2):
            start_on(cluster, listener, most_connections=MOST)
        crowd = Crowd(cluster.processes[0].url, held)
        crowd.until_answered(2 * MOST)
        assert crowd.look() == 2 * MOST
        crowd.leave(MOST)
        crowd.until_answered(CLIENTS)
