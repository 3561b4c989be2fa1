"""Write history in all ways at once: clients and a runner at two instances, and transactions that end in all ways."""

import itertools
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from random import Random
from typing import Any

import httpx
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from models.core.callers import ADMIN
from models.feed.append import NewEvent, append_events
from models.runs.delete import purge_deleted
from models.runs.submit import submit_runs
from testkit.waiting import eventually
from tests.support.db_verbs import start_submission
from tests.support.web import PROMPT

START = {"type": "start_session", "parameters": PROMPT}
# Sessions that are never deleted.
KEPT = [f"kept-{place}" for place in range(3)]
RUNNER = {"hostname": "h", "project_dir": "/", "executor_profile": "feed", "executor": {"type": "autonomous"}}
# Failures after which a client retries.
FAILURES = (httpx.HTTPError, DBAPIError, OSError)


class Refused(httpx.HTTPError):
    """Answer 5xx."""


class FeedWriters:
    """A thread for each way of writing, in a loop; ``urls`` may change, and the next call takes the next one.

    ``turns`` counts the finished rounds of each; ``acknowledged`` holds the contents of events that were answered 201.
    """

    def __init__(self, urls: Sequence[str], engine: Engine, *, seed: int = 1, pace: float = 0.05) -> None:
        self.turns: Counter[str] = Counter()
        self.acknowledged: list[str] = []
        self._urls = urls
        self._places = itertools.count()
        self._engine = engine
        self._pace = pace
        self._ended = threading.Event()
        self._fault: BaseException | None = None
        self._runner: str | None = None
        roles = [
            self._one_event, self._many_events, self._submit, self._serve, self._delete, self._abandon, self._commit_late,
            self._submit_several, self._purge,
        ]  # fmt: skip
        self._names = [role.__name__ for role in roles]
        self._threads = [
            threading.Thread(target=partial(self._go_on, role, Random(f"{seed} {role.__name__}")), daemon=True)
            for role in roles
        ]

    def start(self) -> None:
        """Create the sessions that are kept, then start all threads."""
        with httpx.Client(timeout=30, trust_env=False) as http:
            for session_id in KEPT:
                self._post(http, "/runs", START | {"session_id": session_id})
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every thread finish its round."""
        self._ended.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        if self._fault is not None:
            raise self._fault

    def until_each(self, turns: int, within: float = 60) -> None:
        """Wait until each thread has finished so many further rounds."""
        before = Counter(self.turns)

        def done() -> bool:
            return self._fault is not None or all(self.turns[name] >= before[name] + turns for name in self._names)

        try:
            eventually(done, within, what="writers that go on")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.turns - before}") from None
        if self._fault is not None:
            raise self._fault

    def _go_on(self, role: Callable[[httpx.Client, Random], None], random: Random) -> None:
        with httpx.Client(timeout=5, trust_env=False) as http:
            while not self._ended.wait(self._pace * random.uniform(0.5, 1.5)):
                try:
                    role(http, random)
                except FAILURES:
                    continue
                except BaseException as fault:  # noqa: BLE001 raised again in the test's own thread
                    self._fault = fault
                    return
                self.turns[role.__name__] += 1

    def _post(self, http: httpx.Client, path: str, body: Any) -> httpx.Response:
        url = self._urls[next(self._places) % len(self._urls)]
        answer = http.post(f"{url}{path}", json=body)
        if answer.status_code >= 500:
            raise Refused(answer.text)
        return answer

    # Clients

    def _say(self, http: httpx.Client, random: Random, number: int) -> None:
        session_id = random.choice(KEPT)
        contents = [uuid.uuid4().hex + "x" * random.choice([0, 0, 500, 5000]) for _ in range(number)]
        events = [
            {"event_type": "message", "session_id": session_id, "timestamp": "t", "content": content}
            for content in contents
        ]
        answer = self._post(http, f"/sessions/{session_id}/events", events if number > 1 else events[0])
        assert answer.status_code == 201, answer.text
        self.acknowledged += contents

    def _one_event(self, http: httpx.Client, random: Random) -> None:
        self._say(http, random, 1)

    def _many_events(self, http: httpx.Client, random: Random) -> None:
        self._say(http, random, random.randint(2, 8))

    def _submit(self, http: httpx.Client, random: Random) -> None:
        answer = self._post(http, "/runs/batch", {"runs": [START] * random.randint(2, 4)})
        assert {result["code"] for result in answer.json()["results"]} == {201}

    def _delete(self, http: httpx.Client, random: Random) -> None:
        """Delete a session with events, some of them without a position yet."""
        session_id = f"deleted-{uuid.uuid4().hex}"
        demands = {"tags": ["nobody"]}
        self._post(http, "/runs", START | {"session_id": session_id, "additional_demands": demands})
        event = {"event_type": "message", "session_id": session_id, "timestamp": "t", "content": "gone"}
        self._post(http, f"/sessions/{session_id}/events", [event] * random.randint(1, 4))
        url = self._urls[next(self._places) % len(self._urls)]
        answer = http.delete(f"{url}/sessions/{session_id}")
        if answer.status_code != 200:
            raise Refused(answer.text)

    # Runner

    def _serve(self, http: httpx.Client, random: Random) -> None:
        """Claim all there is, and report all of it in one call: several runs in one transaction."""
        if self._runner is None:
            answer = self._post(http, "/runner/register", RUNNER | {"instance_id": "feed"})
            self._runner = str(answer.json()["runner_id"])
        url = self._urls[next(self._places) % len(self._urls)]
        query = {"runner_id": self._runner, "wait": "1", "max": "8"}
        answer = http.get(f"{url}/runner/runs", params=query)
        if answer.status_code != 200:
            raise Refused(answer.text)
        reports = [
            {"run_id": run["run_id"], "claim_token": run["claim_token"], "outcome": outcome}
            for run in answer.json().get("runs", [])
            for outcome in ("started", random.choice(["completed", "failed"]))
        ]
        self._post(http, "/runner/runs/report", {"runner_id": self._runner, "reports": reports})

    # Transactions

    def _abandon(self, _http: httpx.Client, random: Random) -> None:
        """Roll back events: their ids were given, positions never, so no hole is left."""
        with self._engine.connect() as connection:
            submit_runs(connection, [start_submission() for _ in range(random.randint(1, 3))], max_depth=10)
            append_events(connection, [_event(random) for _ in range(random.randint(1, 5))])
            connection.rollback()

    def _commit_late(self, _http: httpx.Client, random: Random) -> None:
        """Commit events with smaller ids after others were written, committed and numbered."""
        with self._engine.begin() as connection:
            append_events(connection, [_event(random) for _ in range(random.randint(1, 5))])
            before = self.turns["_one_event"]
            with suppress(AssertionError):
                eventually(lambda: self._ended.is_set() or self.turns["_one_event"] > before + 2, 3)

    def _submit_several(self, _http: httpx.Client, random: Random) -> None:
        """Submit several runs in sessions of their own in one transaction, with events of others in between."""
        with self._engine.begin() as connection:
            for _ in range(2):
                submit_runs(connection, [start_submission() for _ in range(random.randint(2, 4))], max_depth=10)
                append_events(connection, [_event(random)])

    def _purge(self, _http: httpx.Client, random: Random) -> None:
        """Remove numbered events of deleted sessions continuously, under every reader; upkeep does so now and then."""
        with self._engine.begin() as connection:
            purge_deleted(connection, random.randint(1, 20))


def _event(random: Random) -> NewEvent:
    return NewEvent(random.choice(KEPT), ADMIN, "message", '{"data":{"content":"direct"}}')


@contextmanager
def writing(urls: Sequence[str], engine: Engine, *, seed: int = 1) -> Iterator[FeedWriters]:
    """Run writers for the length of a block."""
    writers = FeedWriters(urls, engine, seed=seed)
    writers.start()
    try:
        yield writers
    finally:
        writers.stop()
