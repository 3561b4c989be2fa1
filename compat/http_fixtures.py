"""Fixtures for tests of another coordinator's API that make them speak to running replicas. Copied beside them as
conftest.py; imports nothing of this project.
"""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest


class Replicas(httpx.Client):
    """Client whose requests go to the replicas in turns."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(timeout=60)
        self._next = cycle(urls)

    def request(self, method: str, url: Any, **how: Any) -> httpx.Response:
        return super().request(method, next(self._next) + str(url), **how)

    def empty(self) -> None:
        """Remove all runners, then all sessions: what a runner held ends with it."""
        for runner in self.get("/runners").json()["runners"]:
            self.delete(f"/runners/{runner['runner_id']}", params={"self": "true"})
        for session in self.get("/sessions").json()["sessions"]:
            self.post(f"/sessions/{session['session_id']}/stop")
            self.delete(f"/sessions/{session['session_id']}").raise_for_status()
        for agent in self.get("/agents").json():
            self.delete(f"/agents/{agent['name']}")


@pytest.fixture
def coordinator_client() -> Iterator[Replicas]:
    """Give a client of running replicas that have no sessions and no runners."""
    with Replicas(Path(__file__).with_name("urls.txt").read_text().split()) as client:
        client.empty()
        yield client
