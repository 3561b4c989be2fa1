"""Check clients that do not read, instances that end under their clients, and crowds: other clients notice nothing
(promises 3 and 4).
"""

import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from urllib.parse import urlsplit

import httpx
from sqlalchemy import Engine

from models.feed.sequence import sequence_feed
from testkit.cluster import Cluster, Process
from testkit.feed_follower import (
    Connection,
    Follower,
    Message,
    all_numbered,
    head,
    ledger,
    open_stream,
    seen_events,
)
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebClient

# More than the kernel buffers for a client that does not read.
LARGE = "x" * 1_000_000
LARGE_EVENTS = 12


@contextmanager
def never_reading(web: Process) -> Iterator[socket.socket]:
    """Open a stream and read nothing from it."""
    where = urlsplit(web.url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.connect((str(where.hostname), int(where.port or 0)))
        client.sendall(b"GET /sse/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        eventually(lambda: streams(web) == 1, what="a stream")
        yield client


def streams(web: Process) -> int:
    """Return the number of feed clients of the process."""
    found = re.search(r"^coordinator_streams ([\d.]+)$", httpx.get(f"{web.url}/metrics", timeout=30).text, re.MULTILINE)
    return int(float(found.group(1))) if found else 0


def say(client: WebClient, session_id: str, *contents: object) -> None:
    """Append events in one call."""
    event = {"event_type": "message", "session_id": session_id, "timestamp": "t"}
    answer = client.post(f"/sessions/{session_id}/events", [event | {"content": content} for content in contents])
    assert answer.status_code == 201


def feed_beside_stalled_client(web: Process, db: DbVerbs) -> None:
    """Write more than a stalled client's buffers hold, and check that another client gets all of it."""
    client = WebClient(web.url)
    with open_stream(web.url) as stream:
        stream.until("init")
        session_id = client.submit()["session_id"]
        for _ in range(LARGE_EVENTS):
            say(client, session_id, LARGE)
        db.do(sequence_feed)
        history = ledger(db.engine)
        assert seen_events(stream.take(len(history))) == history
    client.close()


def test_stalled_client_is_cut_off_and_delays_no_other(cluster: Cluster, db: DbVerbs) -> None:
    """Close its connection and forget the client."""
    web = cluster.start_web(send_timeout_seconds=5)
    with never_reading(web) as client:
        feed_beside_stalled_client(web, db)
        eventually(lambda: streams(web) == 0, what="a client that is cut off")
        client.settimeout(30)
        assert ended(client), "its connection is still open"
    assert "Traceback" not in web.log()


def ended(client: socket.socket) -> bool:
    """Return whether the connection ends once its buffered bytes are read."""
    try:
        while client.recv(1 << 20):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def test_stalled_client_does_not_delay_shutdown(cluster: Cluster, db: DbVerbs) -> None:
    """Cut it off within the bounds of the drain, long before its send timeout of 600 s."""
    web = cluster.start_web(send_timeout_seconds=600, drain_seconds=1, graceful_shutdown_seconds=3)
    with never_reading(web):
        feed_beside_stalled_client(web, db)
        eventually(lambda: streams(web) == 1, what="the end of the other stream")
        web.terminate()
        assert web.wait(30) == 0
    assert "Traceback" not in web.log()


def read_to_end(stream: Connection) -> list[Message]:
    """Read everything until the server ends the stream, which must happen between two messages."""
    messages = list(stream.messages())
    assert stream.response.isclosed(), "the answer was cut"
    assert not stream.parser.rest, f"ended in the middle of {bytes(stream.parser.rest)!r}"
    return messages


@contextmanager
def talking(client: WebClient) -> Iterator[None]:
    """Append events continuously until the end of the block."""
    session_id = client.submit()["session_id"]
    over = threading.Event()

    def talk() -> None:
        while not over.wait(0.01):
            say(client, session_id, "x" * 2000, "y")

    with ThreadPoolExecutor(1) as thread:
        talk_on = thread.submit(talk)
        yield
        over.set()
        talk_on.result(30)


def test_streams_of_a_draining_process_end_whole_and_resume_elsewhere(cluster: Cluster, engine: Engine) -> None:
    """End each with `retry:`, never within a message; still answer clients that come during the drain."""
    webs, _ = cluster.start_processes(workers=1, drain_seconds=2, graceful_shutdown_seconds=5)
    leaving, staying = webs
    client = WebClient(staying.url)
    with ExitStack() as stack:
        begin = client.get("/sessions").headers["feed-cursor"]
        opened = [stack.enter_context(open_stream(leaving.url, {"last_event_id": begin})) for _ in range(20)]
        follower = Follower([leaving.url, staying.url], cursor=begin)
        stack.callback(follower.stop)
        threads = stack.enter_context(ThreadPoolExecutor(len(opened)))
        with talking(client):
            eventually(lambda: len(follower.events) > 20, what="events")
            read = [threads.submit(read_to_end, stream) for stream in opened]
            leaving.terminate()
            eventually(partial(is_draining, leaving.url), what="a drain")
            with open_stream(leaving.url, {"last_event_id": begin}) as late:
                assert late.response.status == 200
                endings = [future.result(30) for future in read] + [read_to_end(late)]
            assert leaving.wait(30) == 0
        eventually(lambda: all_numbered(engine), what="numbered events")
        follower.until_at(head(engine))
        follower.stop()
    history = ledger(engine)
    assert seen_events(follower.events) == history
    assert not follower.resets
    for messages in endings:
        events = [message for message in messages if message.event]
        assert seen_events(events) == history[: len(events)]
        assert messages[-1].retry is not None
    client.close()


def is_draining(url: str) -> bool:
    """Return whether the process announces that it is about to end."""
    return httpx.get(f"{url}/health/ready", timeout=30).status_code == 503


def test_two_hundred_clients_of_process_get_all_of_burst(cluster: Cluster, db: DbVerbs) -> None:
    """Send 2,000 events at once to each of them, byte for byte."""
    web = cluster.start_web(sse_heartbeat_seconds=30)
    client = WebClient(web.url)
    session_id = client.submit()["session_id"]
    db.do(sequence_feed)
    with ExitStack() as stack:
        opened = [stack.enter_context(open_stream(web.url, {"types": "event"})) for _ in range(200)]
        for stream in opened:
            stream.until("init")
        for part in range(2):
            say(client, session_id, *range(part * 1000, part * 1000 + 1000))
        while db.do(sequence_feed):
            pass
        history = ledger(db.engine, where="kind = 'event'")
        assert len(history) == 2000
        for stream in opened:
            assert burst(stream, len(history)) == history
    client.close()


def burst(stream: Connection, number: int) -> list[tuple[int, str, str]]:
    """Read so many messages by a regular expression: quicker than parsing them."""
    found: list[tuple[int, str, str]] = []
    rest = b""
    while len(found) < number:
        data = stream.response.read1(1 << 20)
        assert data, f"the stream ended after {len(found)}"
        whole, _, rest = (rest + data).rpartition(b"\n\n")
        messages = re.findall(r"id: \S+?(\d+)\nevent: (\w+)\ndata: (.*)", whole.decode())
        found += [(int(position), kind, frame) for position, kind, frame in messages]
    return found
