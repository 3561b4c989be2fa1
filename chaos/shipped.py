import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final, Self

import httpx
import psutil
from sqlalchemy import Engine, text

from chaos.cluster import signal_all
from chaos.ledger import Ledger
from chaos.verdict import Verdict
from models.schema.sql import sql
from runtime.processes import family
from testkit.answering_proxy import ANSWERS, answering_proxy
from testkit.cluster import COMMAND
from testkit.recorded_events import RECORDED_EVENTS

TAG: Final = "shipped"
LINES: Final = 10
EVERY_SECONDS: Final = 2.0
_JOB: Final = (
    "import os, time\n"
    f"for number in range({LINES}): print(os.environ['COORDINATOR_RUN_ATTEMPT'], 'line', number); time.sleep(0.2)\n"
    'print(\'{"result_text": "done"}\')'
)
_RUNS: Final = text("SELECT run_id, status, attempt, error FROM runs WHERE run_id = ANY(:runs)")
_SAID: Final = sql(
    """
    SELECT run_id, frame -> 'data' ->> 'event_type' AS kind, frame -> 'data' -> 'content' -> 0 ->> 'text' AS line
    FROM $recorded WHERE kind = 'event' AND run_id = ANY(:runs) ORDER BY run_id, feed_pos, id
""",
    recorded=RECORDED_EVENTS,
)


class Shipped:
    def __init__(self, url: str, directory: Path, ledger: Ledger, seed: int) -> None:
        self._url = url
        self._directory = directory
        self._ledger = ledger
        self._random = Random(f"{seed} shipped")
        self._over = threading.Event()
        self._submitting = threading.Thread(target=self._submit, name="shipped", daemon=True)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._held = ExitStack()
        self.runs: list[str] = []

    def __enter__(self) -> Self:
        self._proxy = self._held.enter_context(answering_proxy(self._url, self._directory / "proxy"))
        for name, url in (("shipped-1", self._proxy.url), ("shipped-2", self._url)):
            self._start(name, url)
        self._submitting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._held.close()

    def answer_instead(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        try:
            while (left := until - time.monotonic()) > 0:
                self._proxy.answer(self._random.choice(list(ANSWERS)))
                time.sleep(min(left, 1.0))
        finally:
            self._proxy.answer()

    @contextmanager
    def asleep(self, name: str) -> Iterator[None]:
        with suppress(psutil.NoSuchProcess):
            stopped = family([psutil.Process(self._processes[name].pid)])
            signal_all(stopped, signal.SIGSTOP)
            try:
                yield
            finally:
                signal_all(stopped, signal.SIGCONT)

    def finish(self) -> None:
        self._over.set()
        self._submitting.join(60)

    def judge(self, engine: Engine) -> Verdict:
        return judge_shipped(engine, self.runs)

    def _start(self, name: str, url: str) -> None:
        options = ("--name", name, "--tags", TAG, "--require-matching-tags", "--concurrency", "2")
        command = [str(COMMAND), "runner", "--url", url, *options, "--", sys.executable, "-uc", _JOB]
        environment = child_environment(self._directory)
        with (self._directory / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def _submit(self) -> None:
        number = 0
        while not self._over.wait(EVERY_SECONDS):
            number += 1
            key = f"shipped-{number}"
            body = {
                "type": "start_session",
                "parameters": {"prompt": key},
                "additional_demands": {"tags": [TAG]},
                "max_attempts": 20,
                "labels": {"key": key},
            }
            while not self._submitted(key, body):
                time.sleep(0.5)

    def _submitted(self, key: str, body: dict[str, object]) -> bool:
        with suppress(httpx.HTTPError):
            answer = httpx.post(f"{self._url}/runs", json=body, headers={"Idempotency-Key": key}, timeout=20)
            if answer.status_code in {200, 201}:
                run = answer.json()
                self._ledger.accept(key, run["run_id"], run["session_id"])
                self.runs.append(run["run_id"])
                return True
        return False


def judge_shipped(engine: Engine, runs: Sequence[str]) -> Verdict:
    with engine.connect() as connection:
        found = {row.run_id: row for row in connection.execute(_RUNS, {"runs": list(runs)})}
        said: dict[str, list[tuple[str, str]]] = {run_id: [] for run_id in runs}
        for row in connection.execute(_SAID, {"runs": list(runs)}):
            said[row.run_id].append((row.kind, row.line or ""))
    findings: list[str] = []
    for run_id in runs:
        run = found[run_id]
        if run.status != "completed":
            findings.append(f"{run_id} is {run.status}: {run.error}")
            continue
        begins = f"{run.attempt} line"
        lines = [line for kind, line in said[run_id] if kind == "message" and line.startswith(begins)]
        results = sum(kind == "result" for kind, _ in said[run_id])
        if lines != [f"{begins} {number}" for number in range(LINES)] or results != 1:
            findings.append(f"{run_id} told {lines} and {results} results")
    attempts = sum(run.attempt for run in found.values())
    promise = "The shipped runner loses no run and no line behind proxies and on sleeping machines"
    return Verdict(promise, f"{len(runs)} runs in {attempts} attempts", findings)


def child_environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(home), "COORDINATOR_LOG_FORMAT": "json"}
