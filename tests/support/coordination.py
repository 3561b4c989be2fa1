"""Start runners, run commands and read the API of a cluster, for tests of runners and client commands."""

import json
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testkit.cluster import Cluster, Process
from testkit.waiting import eventually
from tests.support.command import Ended, coordinator

TERMINAL = {"completed", "failed", "stopped"}


@dataclass
class Coordination:
    """A cluster seen from outside through `url`: one web process unless a test starts more."""

    cluster: Cluster
    url: str

    def start_runner(self, *arguments: str, urls: tuple[str, ...] = (), wait: bool = True) -> Process:
        """Start `coordinator runner` with these arguments and wait until it is registered."""
        addresses = [part for url in urls or (self.url,) for part in ("--url", url)]
        process = self.cluster.start("runner", ["runner", *addresses, *arguments])
        if wait:
            self.cluster.wait_until(process, lambda: '"event": "registered"' in process.log(), "registered")
        return process

    def start_python_runner(self, script: str, *arguments: str, **options: Any) -> Process:
        """Do the same with a Python script as the command, with unbuffered stdout."""
        return self.start_runner(*arguments, "--", sys.executable, "-uc", script, **options)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Make one call and return the JSON of its answer, also of an error."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310 - our own address
        try:
            with urllib.request.urlopen(request, timeout=40) as answer:  # noqa: S310 - our own address
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return json.loads(error.read())

    def submit(self, prompt: str, **fields: Any) -> tuple[str, str]:
        """Submit a run; return its id and its session's."""
        kind = "resume_session" if fields.pop("resume", False) else "start_session"
        answer = self.ask("POST", "/runs", {"type": kind, "parameters": {"prompt": prompt}, **fields})
        return answer["run_id"], answer["session_id"]

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/runs/{run_id}")
        return found

    def until(self, run_id: str, *statuses: str, within: float = 30) -> dict[str, Any]:
        """Wait until the run is in one of these statuses (none given: in a terminal one), and return it."""
        wanted = set(statuses) or TERMINAL
        last: dict[str, Any] = {}

        def visible() -> bool:
            last.update(self.run(run_id))
            return last["status"] in wanted

        eventually(visible, within, every=0.03, what=f"{run_id} in {sorted(wanted)}")
        return last

    def events(self, session_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", f"/sessions/{session_id}/events")["events"]
        return found

    def lines(self, session_id: str) -> list[str]:
        """Return the lines printed in a session."""
        return [event["content"][0]["text"] for event in self.events(session_id) if event["event_type"] == "message"]

    def runners(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", "/runners")["runners"]
        return found

    def command(self, *arguments: str, url: str | None = None, stdin: str = "") -> Ended:
        """Run `coordinator` with these arguments, as in a pipe."""
        return coordinator(*arguments, stdin=stdin, COORDINATOR_URL=self.url if url is None else url)


def is_alive(pid: int) -> bool:
    """Return whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
