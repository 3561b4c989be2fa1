"""`coordinator watch` as people and scripts call it."""

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from testkit.cluster import COMMAND, Cluster
from testkit.feed_follower import sent_data
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebClient

CONTROL_TEXT = "\x1b[2J\x1b]0;mine\x07a\u2028b\x0bc\x9bd"


@pytest.fixture
def web(cluster: Cluster) -> Iterator[WebClient]:
    """Start a web process."""
    client = WebClient(cluster.start_web().url)
    yield client
    client.close()


@contextmanager
def watching(urls: Sequence[str], *arguments: str, stdout: Any, stderr: Any) -> "Iterator[subprocess.Popen[bytes]]":
    """Run `coordinator watch` and end it with the block."""
    environment = {"COORDINATOR_URL": ",".join(urls), "PATH": "/usr/bin:/bin", "TERM": "xterm", "TZ": "UTC"}
    process = subprocess.Popen(
        [str(COMMAND), "watch", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


@contextmanager
def written(directory: Path, urls: Sequence[str], *arguments: str) -> "Iterator[Written]":
    """Run `coordinator watch` with its output in files."""
    paths = (directory / "out", directory / "err")
    with (
        paths[0].open("wb") as out,
        paths[1].open("wb") as err,
        watching(urls, *arguments, stdout=out, stderr=err) as process,
    ):
        yield Written(process, *paths)


class Written:
    """Command that writes into files, with its output so far."""

    def __init__(self, process: "subprocess.Popen[bytes]", out: Path, err: Path) -> None:
        self.process = process
        self._out = out
        self._err = err

    def lines(self) -> list[str]:
        """Return the complete lines."""
        return self._out.read_text().split("\n")[:-1]

    def until(self, text: str) -> list[str]:
        """Return all lines once the last one contains this text."""

        def there() -> bool:
            return text in "".join(self.lines()[-1:])

        eventually(there, what=f"{text!r} in the last line")
        return self.lines()

    def first(self, count: int) -> list[str]:
        """Return the first lines, and ignore later ones."""
        eventually(lambda: len(self.lines()) >= count, what=f"{count} lines")
        return self.lines()[:count]

    def said(self) -> str:
        return self._err.read_text()


def now(client: WebClient) -> str:
    """Return the feed's current cursor."""
    return str(client.get("/sessions").headers["feed-cursor"])


def say(client: WebClient, session_id: str, content: str, **fields: object) -> None:
    event = {"event_type": "message", "session_id": session_id, "timestamp": "2026-01-02T03:04:05Z"}
    body = {**event, "role": "assistant", "content": content, **fields}
    assert client.post(f"/sessions/{session_id}/events", body).status_code == 201


def test_no_line_is_missed_when_replica_is_killed(cluster: Cluster, db: DbVerbs, tmp_path: Path) -> None:
    """Print each item as one JSON object on one line, in the order of history, whatever address it came from."""
    (first, second), _ = cluster.start_processes(webs=2, workers=1)
    elsewhere = WebClient(second.url)
    start = now(elsewhere)
    session_id = elsewhere.submit()["session_id"]
    with written(tmp_path, [first.url, second.url], "--json", "--since", start) as watch:
        say(elsewhere, session_id, "before")
        watch.until("before")
        first.kill()
        for number in range(50):
            say(elsewhere, session_id, f"{CONTROL_TEXT} {number}")
        say(elsewhere, session_id, "the end")
        lines = watch.until("the end")
        assert watch.said() == ""
    told = [json.loads(line) for line in lines]
    prefix, _, position = start.rpartition(".")
    rows = db.rows(
        "SELECT feed_pos, kind, run_id, CAST(frame AS text) AS frame FROM events "
        "WHERE feed_pos > :after AND kind <> 'run_updated' ORDER BY feed_pos",
        after=int(position),
    )
    expected = [(f"{prefix}.{row.feed_pos}", row.kind, json.loads(sent_data(row))) for row in rows]
    assert [(message["id"], message["event"], message["data"]) for message in told] == expected
    elsewhere.close()


def test_lost_and_restored_connection_is_reported_on_stderr(cluster: Cluster, tmp_path: Path) -> None:
    first, second = cluster.start_web(), cluster.start_web()
    elsewhere = WebClient(second.url)
    session_id = elsewhere.submit()["session_id"]
    with written(tmp_path, [first.url, second.url], "--since", now(elsewhere)) as watch:
        say(elsewhere, session_id, "before")
        watch.until("before")
        first.kill()
        say(elsewhere, session_id, "after")
        watch.until("after")
        lost, again = watch.said().splitlines()
    assert lost.startswith(f"coordinator: connection lost: {first.url}: ")
    assert again == f"coordinator: connected again: {second.url}"
    elsewhere.close()


def test_output_for_people_is_one_readable_line_per_item(web: WebClient, tmp_path: Path) -> None:
    """Write no colours into a pipe or a file, and only the requested items."""
    web.submit(session_id="other")
    start = now(web)
    run_id = web.submit(session_id="mine")["run_id"]
    with written(tmp_path, [web.url], "--session", "mine", "--since", start) as watch:
        say(web, "other", "not mine")
        say(web, "mine", "hello\nworld", timestamp="2026-01-02T03:04:05Z")
        web.post(f"/runs/{run_id}/stop")
        lines = watch.until("stopped")
    words = [line.split() for line in lines]
    assert [found[1:] for found in (words[0], words[-1])] == [
        ["session_created", "mine", "pending"],
        ["session_updated", "mine", "stopped"],
    ]
    assert "2026-01-02 03:04:05  message          mine  assistant: hello" in lines
    with written(tmp_path, [web.url], "--run", run_id, "--types", "run_updated", "--since", start) as watch:
        lines = watch.until("stopped")
    assert [line.split()[1:] for line in lines] == [["run_updated", "mine", run_id, s] for s in ("pending", "stopped")]


def test_watch_without_cursor_starts_now(web: WebClient, tmp_path: Path) -> None:
    """Skip history and snapshot."""
    session_id = web.submit()["session_id"]
    say(web, session_id, "long ago")
    eventually(lambda: web.get(f"/sessions/{session_id}/events").json()["events"][-1]["feed_cursor"])
    with written(tmp_path, [web.url], "--types", "event") as watch:

        def has_written() -> bool:
            say(web, session_id, "again and again")
            return bool(watch.lines())

        eventually(has_written, every=0.1)
        lines = watch.until("again and again")
    assert "long ago" not in "".join(lines)


def test_terminal_gets_colours_but_no_control_sequences_of_runs(web: WebClient) -> None:
    """Write only our own escape sequences, and keep each item on one line."""
    start = now(web)
    session_id = web.submit()["session_id"]
    say(web, session_id, CONTROL_TEXT, event_type=f"own{CONTROL_TEXT}")
    say(web, session_id, "x" * 1000)
    say(web, session_id, "the end")
    terminal, output = pty.openpty()
    os.set_blocking(terminal, False)
    shown = b""

    def has_shown() -> bool:
        nonlocal shown
        with suppress(BlockingIOError):
            shown += os.read(terminal, 65_536)
        return shown.endswith(b"the end\r\n")

    try:
        with watching([web.url], "--since", start, stdout=output, stderr=output):
            eventually(has_shown)
    finally:
        os.close(terminal)
        os.close(output)
    coloured = shown.decode()
    text = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert "\x1b[2m" in coloured
    assert not set("\x1b\x07\x0b\x9b\u2028") & set(text)
    lines = text.split("\r\n")[:-1]
    assert len(lines) == 4
    assert lines[1].count("\ufffd[2J\ufffd]0;mine\ufffda\ufffdb\ufffdc\ufffdd") == 2
    assert lines[2].endswith("x…")


def test_ctrl_c_ends_watch_silently(web: WebClient, tmp_path: Path) -> None:
    """Exit with the code that shells expect."""
    session_id = web.submit()["session_id"]
    with written(tmp_path, [web.url], "--since", now(web)) as watch:
        say(web, session_id, "hello")
        watch.until("hello")
        watch.process.send_signal(signal.SIGINT)
        assert watch.process.wait(30) == 130
        assert watch.said() == ""


def test_closed_reader_ends_watch(web: WebClient, tmp_path: Path) -> None:
    """Run `coordinator watch | head -1`, also when nothing more happens."""
    start = now(web)
    web.submit()
    with (
        (tmp_path / "err").open("wb") as err,
        watching([web.url], "--since", start, stdout=subprocess.PIPE, stderr=err) as watch,
    ):
        assert watch.stdout is not None
        assert b"session_created" in watch.stdout.readline()
        watch.stdout.close()
        assert watch.wait(30) == 0
    assert (tmp_path / "err").read_text() == ""


def test_skipped_history_is_reported(web: WebClient, tmp_path: Path) -> None:
    """Name the reason on stderr for people and as an object for programs; then print everything as it is."""
    web.submit()
    with written(tmp_path, [web.url], "--since", "v1.elsewhere.7") as watch:
        assert "1 sessions as they are" in watch.first(1)[0]
        assert watch.said() == "coordinator: history was skipped: the cursor is of another history\n"
    with written(tmp_path, [web.url], "--since", "v1.elsewhere.7", "--json") as watch:
        reset, init = (json.loads(line) for line in watch.first(2))
        assert (reset["event"], reset["data"]) == ("reset", {"reason": "epoch"})
        assert (init["event"], len(init["data"]["sessions"])) == ("init", 1)
        assert watch.said() == ""


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--url", "http://127.0.0.1:9"], 3, "cannot reach http://127.0.0.1:9"),
        (["--types", "nonsense"], 1, "422"),
        (["--since", "ü"], 2, "cursor"),
        (["--url", "nonsense"], 2, "address"),
    ],
)
def test_failure_to_start_is_one_line(
    web: WebClient, tmp_path: Path, arguments: list[str], code: int, text: str
) -> None:
    """Exit with 1 for a refusal, 2 for a wrong command line and 3 if no coordinator answers."""
    with written(tmp_path, [web.url], *arguments) as watch:
        assert watch.process.wait(30) == code
        assert text in watch.said()
        assert watch.said().count("\n") == 1
        assert watch.lines() == []
