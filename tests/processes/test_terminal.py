"""Output of a hostile or broken coordinator on the terminal of its caller."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from devserver.supervisor import ROOT
from testkit.cluster import COMMAND, Cluster, inherited
from tests.support.command import coordinator

# Sequences that rename the window, clear the screen (7 and 8 bit), sound the terminal, turn the writing direction and
# return to the start of the line.
HOSTILE = "a\x1b]0;mine\x07\x1b[2J\x9b2J\u202e\rb"
RAW = {"\x1b", "\x07", "\x9b", "\u202e", "\r"}
RUN = {
    "run_id": HOSTILE,
    "type": HOSTILE,
    "session_id": HOSTILE,
    "agent_name": HOSTILE,
    "parameters": {"prompt": HOSTILE},
    "parent_session_id": HOSTILE,
    "demands": {"hostname": HOSTILE},
    "status": HOSTILE,
    "runner_id": HOSTILE,
    "error": HOSTILE,
    "created_at": "2026-01-01T00:00:00+00:00",
    "started_at": None,
    "completed_at": None,
    "attempt": HOSTILE,
    "max_attempts": HOSTILE,
    "labels": {HOSTILE: HOSTILE},
    "not_before": HOSTILE,
}
RUNNER = {
    "runner_id": HOSTILE,
    "status": HOSTILE,
    "executor_profile": HOSTILE,
    "hostname": HOSTILE,
    "project_dir": HOSTILE,
    "tags": [HOSTILE],
    "capacity": HOSTILE,
    "runs_in_hand": HOSTILE,
    "seconds_since_heartbeat": 1,
}
EVENT = {"event_type": "message", "session_id": HOSTILE, "timestamp": HOSTILE, "role": HOSTILE, "content": HOSTILE}
ANSWERS: dict[str, Any] = {
    "/runs": {"runs": [RUN], "next_cursor": HOSTILE},
    "/runs/x": RUN,
    "/runners": {"runners": [RUNNER], "next_cursor": HOSTILE},
    f"/sessions/{HOSTILE}/events": {"events": [EVENT]},
}
CALLS = [
    ("runs",),
    ("runners",),
    ("run", "x"),
    ("run", "x", "--log"),
    ("run", "x", "--wait"),
    ("submit", "x"),
    ("submit", "x", "--wait"),
    ("stop", "x"),
    ("watch",),
]


@contextmanager
def answering(status: int, answers: dict[str, Any]) -> Iterator[str]:
    """Serve these answers by path, and that of `*` otherwise; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.dumps(answers.get(unquote(self.path.partition("?")[0]), answers["*"])).encode()
            self.send_response(status)
            for name, value in (
                ("Content-Type", "application/json"),
                ("Coordinator-Instance", "hostile"),
                ("Content-Length", str(len(body))),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 -- the names that http.server calls

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def on_terminal(*arguments: str) -> str:
    """Call `coordinator` with a terminal for its output, and return what reached that."""
    terminal, output = pty.openpty()
    try:
        environment = {**inherited("PATH"), "HOME": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "500"}
        process = subprocess.Popen(
            [str(COMMAND), *arguments], stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment
        )
        os.close(output)
        shown = b""
        with suppress(OSError):  # EIO: the other end is closed
            while part := os.read(terminal, 65_536):
                shown += part
        process.wait(30)
    finally:
        os.close(terminal)
    return shown.decode(errors="replace")


@pytest.mark.parametrize(
    "detail",
    [
        HOSTILE,
        {"error": HOSTILE, "message": HOSTILE, "validation_errors": [{"path": HOSTILE, "message": HOSTILE}]},
        [{"loc": [HOSTILE], "msg": HOSTILE}],
        {HOSTILE: HOSTILE},
    ],
)
def test_error_of_coordinator_reaches_terminal_printable(detail: Any) -> None:
    """Run every client command on the text, and one of each kind on the other shapes, which one function prints."""
    with answering(400, {"*": {"detail": detail}}) as url:
        for call in CALLS if detail == HOSTILE else [("run", "x"), ("watch",)]:
            done = coordinator(*call, "--url", url)
            assert done.returncode == 1, (call, done)
            assert not RAW & set(done.stderr + done.stdout), call
            assert "Traceback" not in done.stderr
            assert done.stderr.startswith("coordinator: ")


@pytest.mark.parametrize(
    "call", [call for call in CALLS if call[0] in {"runs", "runners", "run"} and "--wait" not in call]
)
def test_answer_of_coordinator_reaches_terminal_printable(call: tuple[str, ...]) -> None:
    """Write our colours only; show every id, name, text and number as text."""
    with answering(200, {**ANSWERS, "*": RUN}) as url:
        shown = on_terminal(*call, "--url", url)
    assert "a\ufffd]0;mine\ufffd\ufffd[2J" in shown
    assert "Traceback" not in shown
    assert not {"\x07", "\x9b", "\u202e"} & set(shown)
    assert "\x1b]" not in shown
    assert "\x1b[2J" not in shown
    assert "\r" not in shown.replace("\r\n", "")


def test_log_of_runner_is_printable() -> None:
    """Refuse the registration with a reason that would steer a terminal."""
    detail = {"error": "refused", "message": HOSTILE}
    with answering(422, {"*": {"detail": detail}}) as url:
        done = coordinator("runner", "--url", url, "--name", "x", "--", sys.executable, "-c", "")
    assert not RAW & set(done.stderr + done.stdout), done.stderr
    assert "a\ufffd]0;mine" in done.stderr


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LANG": "C"}])
def test_unencodable_output_is_escaped(cluster: Cluster, environment: dict[str, str]) -> None:
    """End no command in a traceback because the terminal's encoding lacks a character."""
    web = cluster.start_web()
    prompt = "zähle die Sterne ★ 星"
    done = coordinator("submit", prompt, "--url", web.url, "--session", "s1", **environment)
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.split()[0]
    for call in (("run", run_id), ("run", run_id, "--log"), ("runs",), ("runners",), ("run", run_id, "--json")):
        done = coordinator(*call, "--url", web.url, **environment)
        assert done.returncode == 0, (call, done.stderr)
        assert "Traceback" not in done.stderr
    for call in (("--help",), ("submit", "--help"), ("settings",), ("keys", "create", "--help")):
        assert coordinator(*call, **environment).returncode == 0, call
    done = coordinator("submit", "-", "--url", web.url, "--json", stdin=prompt, **environment)
    assert done.returncode == 0, done.stderr
    stored = httpx.get(f"{web.url}/runs/{json.loads(done.stdout)['run_id']}").json()
    assert stored["parameters"] == {"prompt": prompt}
