"""Snapshot at the start of a stream: one message for any number of sessions (PROTOCOL, Feed)."""

import json
from collections.abc import Iterator

import pytest

from runtime.settings import Settings
from testkit.feed_follower import open_stream
from tests.support.web import WebClient, served, until_ready


@pytest.fixture
def client(settings: Settings) -> Iterator[WebClient]:
    with served(settings) as web:
        until_ready(web)
        yield web.client


def test_long_snapshot_is_one_message_from_many_pages(client: WebClient) -> None:
    """Send each session once, newest first."""
    runs = [
        {"type": "start_session", "session_id": f"s{number:04}", "parameters": {"prompt": "p"}}
        for number in range(1201)
    ]
    for begin in range(0, len(runs), 1000):
        assert client.post("/runs/batch", {"runs": runs[begin : begin + 1000]}).status_code == 200
    with open_stream(client.url) as stream:
        init = json.loads(stream.until("init")[-1].data)
    ids = [session["session_id"] for session in init["sessions"]]
    assert len(ids) == 1201
    assert set(ids) == {run["session_id"] for run in runs}
    assert ids == [row["session_id"] for row in client.get("/sessions").json()["sessions"]]
    assert "truncated" not in init


def test_truncated_snapshot_says_so_and_has_newest_sessions(settings: Settings) -> None:
    with served(settings.model_copy(update={"init_limit": 3})) as web:
        until_ready(web)
        for number in range(4):
            web.client.submit(session_id=f"s{number}")
        with open_stream(web.client.url) as stream:
            init = json.loads(stream.until("init")[-1].data)
    assert [session["session_id"] for session in init["sessions"]] == ["s3", "s2", "s1"]
    assert init["truncated"] is True


@pytest.mark.parametrize("by", ["session_id", "run_id"])
def test_filtered_stream_starts_with_its_session(client: WebClient, by: str) -> None:
    """Send the session, or that of the run; an empty snapshot if there is none."""
    wanted, _ = client.submit(), client.submit()
    with open_stream(client.url, {by: wanted[by]}) as stream:
        init = json.loads(stream.until("init")[-1].data)
    assert [session["session_id"] for session in init["sessions"]] == [wanted["session_id"]]
    with open_stream(client.url, {by: "none"}) as stream:
        assert json.loads(stream.until("init")[-1].data) == {"sessions": []}
