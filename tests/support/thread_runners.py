"""Runners in threads that claim all runs, write a result and complete them, through web processes that may die."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.web import WebClient


class _RunnerThread(threading.Thread):
    """Runner until it is stopped; its errors are raised at the end."""

    def __init__(self, url: str, name: str, over: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self._client = WebClient(url)
        self._over = over
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            runner = self._client.register(self.name, instance_id=self.name)
            while not self._over.is_set():
                answer = self._client.poll(runner, 1)
                if answer.status_code == httpx.codes.OK:
                    self._complete(answer.json()["run"], runner)
        except BaseException as fault:  # noqa: BLE001 raised again in the test's own thread
            self.fault = fault
        finally:
            self._client.close()

    def _complete(self, run: dict[str, Any], runner: str) -> None:
        session_id = run["session_id"]
        result = {
            "event_type": "result",
            "session_id": session_id,
            "timestamp": "t",
            "result_text": f"of {session_id}",
            "claim_token": run["claim_token"],
        }
        self._client.report(run, runner, "started").raise_for_status()
        self._client.post(f"/sessions/{session_id}/events", result).raise_for_status()
        self._client.report(run, runner, "completed").raise_for_status()


@contextmanager
def runners_at(urls: Sequence[str], runners: int = 4) -> Iterator[None]:
    """Let so many runners work until the end of the block."""
    over = threading.Event()
    threads = [_RunnerThread(urls[place % len(urls)], f"serving-{place}", over) for place in range(runners)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    for thread in threads:
        if thread.fault is not None:
            raise thread.fault
