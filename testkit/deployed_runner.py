"""Runner that behaves as deployed ones do (PROTOCOL, Runners), flaws included: no tokens, no retries.

Run as a script it is that runner, a real process that writes a ledger of its acts, one JSON object a line;
`DeployedRunner` starts it and reads the ledger. It uses httpx and the standard library only: it knows nothing but the
wire.

Prompts: `sleep 3`, `fail`, `fail 3` (after 3 s), `stubborn 3` (ignores SIGTERM); anything else ends at once.
"""

import argparse
import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import httpx

ANSWER_SECONDS = 35.0  # Applies to polls and reports alike.
STOP_SECONDS = 10.0
LEAVE_SECONDS = 5.0
FAILED_POLLS = 3
PAUSE_SECONDS = 1.0
# Report the start of a process that ends at once after its end, as deployed runners do now and
# then; before it if the end takes longer than this.
OVERTAKING_SECONDS = 3.0

ENDS_AT_ONCE = ["true"]

# Time for a process to end after SIGTERM (`DeployedRunner.terminate`): guards against hanging only.
END_SECONDS = 60.0


@dataclass
class Work:
    """A process of ours; `told` once a thread has taken over reporting its end."""

    run: dict[str, Any]
    process: "subprocess.Popen[bytes]"
    told: bool = False
    has_ended: threading.Event = field(default_factory=threading.Event)


class Ledger:
    """Acts in order, with times; complete up to a SIGKILL."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, what: str, **facts: Any) -> None:
        self._file.write(json.dumps({"at": time.time(), "what": what, **facts}).encode() + b"\n")


class Runner:
    """A poll loop, a thread for each process, and one for heartbeats."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._ledger = Ledger(Path(options.ledger))
        self._http = httpx.Client(
            base_url=options.url,
            headers={"Authorization": f"Bearer {options.token}"} if options.token else {},
            timeout=ANSWER_SECONDS,
            limits=httpx.Limits(max_connections=None),
        )
        self._lock = threading.Lock()
        self._works: dict[str, Work] = {}
        self._runner_id = ""
        self._leaving = False

    def main(self) -> NoReturn:
        """Leave at SIGTERM, which the interpreter itself writes into the pipe, in whichever thread it comes: a handler
        in Python waits for this thread to return from its read. Print all stacks at SIGUSR1.
        """
        faulthandler.register(signal.SIGUSR1)
        wake, told = os.pipe()
        os.set_blocking(told, False)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        threading.Thread(target=self._serve, daemon=True).start()
        while signal.SIGTERM not in os.read(wake, 64):
            pass
        self._leave()

    def _serve(self) -> NoReturn:
        """Register, then poll until told to leave, or until three polls in a row have failed."""
        self._register()
        threading.Thread(target=self._beat, daemon=True).start()
        failed = 0
        while failed < FAILED_POLLS:
            if self._poll():
                failed = 0
            else:
                failed += 1
                time.sleep(PAUSE_SECONDS)
        self._ledger.write("gave_up")
        self._end(1)

    def _register(self) -> None:
        """Retry until accepted: the former process may still count as online."""
        identity = {
            "hostname": self._options.hostname,
            "project_dir": self._options.project_dir,
            "executor_profile": self._options.profile,
            "executor": {"type": "autonomous", "command": self._options.command},
            "tags": [tag for tag in self._options.tags.split(",") if tag],
        }
        while True:
            try:
                answer = self._http.post("/runner/register", json=identity)
            except httpx.HTTPError as error:
                self._ledger.write("register_failed", reason=repr(error))
            else:
                self._ledger.write("register", code=answer.status_code, body=answer.text)
                if answer.status_code == 200:
                    self._runner_id = answer.json()["runner_id"]
                    return
            time.sleep(PAUSE_SECONDS)

    def _beat(self) -> None:
        while True:
            time.sleep(self._options.heartbeat)
            self._send_once("heartbeat", "/runner/heartbeat", {"runner_id": self._runner_id})

    def _poll(self) -> bool:
        """Poll once and do all it asks for, without polling meanwhile. Return whether it was answered well."""
        try:
            answer: httpx.Response | httpx.HTTPError = self._http.get(
                "/runner/runs", params={"runner_id": self._runner_id}
            )
        except httpx.HTTPError as error:
            answer = error
        if self._leaving:
            sys.exit()  # Ends this thread alone.
        if isinstance(answer, httpx.HTTPError):
            self._ledger.write("poll_failed", reason=repr(answer))
            return False
        if answer.status_code == 204:
            self._ledger.write("poll", code=204)
            return True
        if not answer.is_success:
            self._ledger.write("poll_failed", code=answer.status_code, body=answer.text)
            return False
        content = answer.json()
        self._ledger.write("poll", code=answer.status_code, keys=sorted(content))
        if content.get("deregistered"):
            self._ledger.write("deregistered")
            self._end(0)
        for session_id in content.get("stop_sessions", []):
            self._stop(session_id)
        if content.get("run"):
            self._start(content["run"])
        return True

    def _start(self, run: dict[str, Any]) -> None:
        """Start the process first and report after it: the end of a short one overtakes its start."""
        self._ledger.write("claimed", run_id=run["run_id"], session_id=run["session_id"], attempt=run.get("attempt"))
        command = command_of(str(run["parameters"].get("prompt", "")))
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        work = Work(run, process)
        with self._lock:
            self._works[run["session_id"]] = work
        self._ledger.write("spawned", run_id=run["run_id"], pid=process.pid)
        threading.Thread(target=self._attend, args=(work,), daemon=True).start()
        if command == ENDS_AT_ONCE:
            work.has_ended.wait(OVERTAKING_SECONDS)
        self._report(work, "started")

    def _attend(self, work: Work) -> None:
        """Send what the process itself would send over HTTP, and its end."""
        session = f"/sessions/{work.run['session_id']}"
        if not self._options.quiet:
            binding = {
                "executor_session_id": f"exec-{work.run['session_id']}",
                "hostname": self._options.hostname,
                "executor_profile": self._options.profile,
                "project_dir": self._options.project_dir,
            }
            self._send_once("bind", f"{session}/bind", binding, run_id=work.run["run_id"])
        exit_code = work.process.wait()
        if not self._take_on(work):
            return
        self._ledger.write("exited", run_id=work.run["run_id"], exit_code=exit_code)
        if exit_code:
            self._report(work, "failed", error=f"exit code {exit_code}")
            return
        if not self._options.quiet:
            result = {
                "event_type": "result",
                "session_id": work.run["session_id"],
                "timestamp": datetime.now(UTC).isoformat(),
                "result_text": f"done: {work.run['run_id']}",
            }
            self._send_once("event", f"{session}/events", result, run_id=work.run["run_id"])
        self._report(work, "completed")
        work.has_ended.set()

    def _take_on(self, work: Work) -> bool:
        """Return whether the caller reports the end of this process: the poll loop, which stops it, or its thread."""
        with self._lock:
            if self._works.get(work.run["session_id"]) is work:
                del self._works[work.run["session_id"]]
            taken, work.told = work.told, True
            return not taken

    def _stop(self, session_id: str) -> None:
        """Send SIGTERM, wait up to 10 s, send SIGKILL. Report nothing for a session without a process."""
        with self._lock:
            work = self._works.get(session_id)
        if work is None or not self._take_on(work):
            self._ledger.write("stop_ignored", session_id=session_id)
            return
        self._ledger.write("stopping", run_id=work.run["run_id"], session_id=session_id)
        number = "SIGTERM"
        work.process.terminate()
        try:
            work.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            number = "SIGKILL"
            work.process.kill()
            work.process.wait()
        self._report(work, "stopped", signal=number)

    def _report(self, work: Work, outcome: str, **facts: Any) -> None:
        body = {"runner_id": self._runner_id, **facts}
        self._send_once(outcome, f"/runner/runs/{work.run['run_id']}/{outcome}", body, run_id=work.run["run_id"])

    def _send_once(self, what: str, path: str, body: dict[str, Any], **facts: Any) -> None:
        """Send it once and ignore the outcome."""
        begun = time.time()
        try:
            answer = self._http.post(path, json=body)
        except httpx.HTTPError as error:
            self._ledger.write(what, **facts, code=None, reason=repr(error), begun=begun)
        else:
            self._ledger.write(what, **facts, code=answer.status_code, body=answer.text[:500], begun=begun)

    def _leave(self) -> NoReturn:
        """Kill its work, say so to the coordinator within 5 s in all, and end."""
        self._leaving = True
        self._kill_all()
        telling = threading.Thread(target=self._deregister, daemon=True)
        telling.start()
        telling.join(LEAVE_SECONDS)
        self._end(0)

    def _deregister(self) -> None:
        try:
            answer = self._http.delete(f"/runners/{self._runner_id}", params={"self": "true"})
            self._ledger.write("left", code=answer.status_code)
        except httpx.HTTPError as error:
            self._ledger.write("left", code=None, reason=repr(error))

    def _kill_all(self) -> None:
        for work in list(self._works.values()):
            work.told = True
            work.process.kill()
            self._ledger.write("killed", run_id=work.run["run_id"])

    def _end(self, code: int) -> NoReturn:
        """Kill all its work, and report nothing about that."""
        self._kill_all()
        self._ledger.write("ended", exit_code=code)
        os._exit(code)


def command_of(prompt: str) -> list[str]:
    """Return the command for a prompt."""
    verb, _, length = prompt.partition(" ")
    seconds = length if length.replace(".", "", 1).isdigit() else "0"
    match verb:
        case "sleep":
            return ["sleep", seconds]
        case "fail":
            return ["sh", "-c", 'sleep "$0"; exit 1', seconds]
        case "stubborn":
            return ["sh", "-c", 'trap "" TERM; sleep "$0"', seconds]
        case _:
            return ENDS_AT_ONCE


@dataclass
class DeployedRunner:
    """The script as a process of a test. Reuse the identity by `start()` after `kill()`, or by another instance."""

    directory: Path
    url: str
    hostname: str = "deployed-host"
    project_dir: str = "/srv/project"
    profile: str = "deployed"
    command: str = "deployed-executor"
    tags: str = ""
    heartbeat: float = 60
    quiet: bool = False
    token: str = ""
    process: "subprocess.Popen[bytes]" = field(init=False)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.ledger_file = self.directory / "ledger.jsonl"
        self.start()

    def start(self) -> None:
        """Start it, also again, on the same ledger."""
        named = ("url", "hostname", "project_dir", "profile", "command", "tags", "heartbeat", "token")
        arguments = [part for name in named for part in (f"--{name.replace('_', '-')}", str(getattr(self, name)))]
        with (self.directory / "output.log").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, __file__, *arguments, "--ledger", str(self.ledger_file), *["--quiet"] * self.quiet],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ledger(self, what: str = "", run_id: str = "") -> list[dict[str, Any]]:
        """Return its acts so far, or only those of one kind or run."""
        if not self.ledger_file.exists():
            return []
        *lines, _unfinished = self.ledger_file.read_text(encoding="utf-8").split("\n")
        entries: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [
            entry
            for entry in entries
            if (not what or entry["what"] == what) and (not run_id or entry.get("run_id") == run_id)
        ]

    @property
    def runner_id(self) -> str:
        """Return its id; empty until registered."""
        accepted = [entry for entry in self.ledger("register") if entry["code"] == 200]
        return str(json.loads(accepted[-1]["body"])["runner_id"]) if accepted else ""

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def terminate(self) -> int:
        """Send SIGTERM: it kills its work, leaves and ends; return its exit code, or fail with stacks and last acts."""
        self.process.terminate()
        try:
            return self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            evidence = self._evidence()
            self.kill()
            raise AssertionError(f"did not end within {END_SECONDS} s of SIGTERM\n{evidence}") from None

    def _evidence(self) -> str:
        self.process.send_signal(signal.SIGUSR1)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(2)  # for the stacks to be written; it may also end now
        tasks = [
            status.read_text(errors="replace") for status in Path(f"/proc/{self.process.pid}/task").glob("*/status")
        ]
        acts = [json.dumps(entry) for entry in self.ledger()[-20:]]
        output = (self.directory / "output.log").read_text(errors="replace")[-8000:]
        return "\n".join([output, *acts, *tasks])

    def kill(self) -> None:
        """Send SIGKILL to it and all it started, as in a power cut."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait(30)

    def freeze(self) -> None:
        """Stop it and all it started within whatever they do."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("url", "ledger", "hostname", "project-dir", "profile", "command"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--tags", default="")
    parser.add_argument("--token", default="")
    parser.add_argument("--heartbeat", type=float, default=60.0)
    parser.add_argument("--quiet", action="store_true", help="no bind, no result event")
    return parser.parse_args()


if __name__ == "__main__":
    Runner(_options()).main()
