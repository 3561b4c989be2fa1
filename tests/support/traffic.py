"""Clients and runners on several web processes at once, in a thread of their own, and the ledger of their answers.

They behave as ours are meant to: a submission is repeated with its key, a report with its token, until it is decided.
"""

import asyncio
import itertools
import random
import ssl
import threading
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from testkit.waiting import eventually

PAUSE_SECONDS = 0.1
ANSWER_SECONDS = 40.0
Answer = Awaitable[httpx.Response]


@dataclass(frozen=True)
class Delivery:
    """A run that a poll was given."""

    run_id: str
    claim_token: str
    runner_id: str
    attempt: int


@dataclass(frozen=True)
class DecidedReport:
    """Report that was decided: 200, or a refusal."""

    run_id: str
    claim_token: str
    outcome: str
    code: int


@dataclass
class Ledger:
    """Answers to clients and runners. ``unheard`` counts calls without an answer, ``codes`` answers by kind."""

    keys: set[str] = field(default_factory=set)
    accepted: dict[str, str] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    said: list[DecidedReport] = field(default_factory=list)
    codes: Counter[tuple[str, int]] = field(default_factory=Counter)
    unheard: Counter[str] = field(default_factory=Counter)
    bodies: dict[tuple[str, int], str] = field(default_factory=dict)

    def note(self, kind: str, answer: httpx.Response) -> None:
        self.codes[kind, answer.status_code] += 1
        self.bodies[kind, answer.status_code] = answer.text[:500]

    def failed(self) -> dict[str, Any]:
        """Return everything that a client without retries would call a failure, by kind; empty if no request failed."""
        bad = {f"{kind} {code}": body for (kind, code), body in self.bodies.items() if code >= 400}
        return bad | {f"{kind} without an answer": number for kind, number in self.unheard.items()}

    def refused(self, *kinds: str) -> dict[tuple[str, int], str]:
        """Return answers 5xx, and polls and registrations refused in any way, with one sample body each."""
        return {
            (kind, code): body
            for (kind, code), body in self.bodies.items()
            if (not kinds or kind in kinds) and (code >= 500 or (kind in {"poll", "register"} and code >= 400))
        }

    def said_with(self, code: int, outcome: str) -> list[DecidedReport]:
        return [one for one in self.said if (one.code, one.outcome) == (code, outcome)]


class Traffic:
    """Submitters and runners on ``urls``, each moving to the next one when a call is not answered.

    ``max_attempts`` applies to the runs; ``work`` is the most seconds a run takes; ``keyed``: whether submissions carry
    a key; one without is never repeated; ``submit_seconds`` is how long one waits for its answer. ``readers`` look at what was submitted; ``idle`` runners only poll: no run is
    for them.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        runners: int = 8,
        submitters: int = 4,
        max_attempts: int = 1,
        work: float = 0.05,
        poll_seconds: float = 5.0,
        keyed: bool = True,
        pace: float = 0.05,
        submit_seconds: float = ANSWER_SECONDS,
        readers: int = 0,
        idle: int = 0,
    ) -> None:
        self.ledger = Ledger()
        self._urls = list(urls)
        self._runners = runners
        self._submitters = submitters
        self._max_attempts = max_attempts
        self._work = work
        self._poll_seconds = poll_seconds
        self._keyed = keyed
        self._pace = pace
        self._submit_seconds = submit_seconds
        self._readers = readers
        self._idle = idle
        self._left = 0
        self._reporting = 0
        self._no_more_runs = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = asyncio.Event()
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        eventually(lambda: self._loop is not None or not self._thread.is_alive(), what="traffic")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._no_more_runs.set()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(ANSWER_SECONDS + 20)
        if error is None and self._failures:
            raise self._failures[0]

    def until_accepted(self, more: int, within: float = 90) -> None:
        """Wait until so many further submissions were accepted."""
        before = len(self.ledger.accepted)
        self._until(lambda: len(self.ledger.accepted) >= before + more, within, f"{more} more accepted")

    def until_completed(self, more: int, within: float = 90) -> None:
        """Wait until so many further reports of an end were accepted."""
        before = len(self.ledger.said_with(200, "completed"))
        self._until(
            lambda: len(self.ledger.said_with(200, "completed")) >= before + more, within, f"{more} more completed"
        )

    def finish_submitting(self) -> None:
        """Begin no more submissions, and wait until those under way are decided."""
        self._no_more_runs.set()
        self._until(lambda: not self._left, ANSWER_SECONDS + 20, "decided submissions")

    def until_reported(self) -> None:
        """Wait until no runner has a report under way: the ledger is complete once every run has ended, too."""
        self._until(lambda: not self._reporting, ANSWER_SECONDS + 20, "decided reports")

    def _until(self, condition: Callable[[], bool], within: float, what: str) -> None:
        def done() -> bool:
            if self._failures:
                raise self._failures[0]
            return condition()

        try:
            eventually(done, within, every=0.05, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error} ({self.ledger.codes}, {self.ledger.unheard})") from None

    def _run(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as failure:  # noqa: BLE001 raised again in the test's own thread
            self._failures.append(failure)

    async def _all(self) -> None:
        # Make a client each and share what is slow to make: one pool of all connections is searched at every request.
        trust = ssl.create_default_context()
        async with AsyncExitStack() as held:

            async def clients(number: int) -> list[httpx.AsyncClient]:
                made = [httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False, verify=trust) for _ in range(number)]
                return [await held.enter_async_context(client) for client in made]

            submitters, readers = await clients(self._submitters), await clients(self._readers)
            runners = await clients(self._runners + self._idle)
            self._left = self._submitters
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(work(http, place))
                    for work, crowd in ((self._submit, submitters), (self._serve, runners), (self._read, readers))
                    for place, http in enumerate(crowd)
                ]
                self._loop = asyncio.get_running_loop()
                await self._over.wait()
                for task in tasks:
                    task.cancel()

    async def _submit(self, http: httpx.AsyncClient, place: int) -> None:
        urls = itertools.cycle(self._urls[place % len(self._urls) :] + self._urls[: place % len(self._urls)])
        try:
            while not self._no_more_runs.is_set():
                await self._submit_one(http, urls)
                await asyncio.sleep(random.uniform(0, 2 * self._pace))
        finally:
            self._left -= 1

    async def _submit_one(self, http: httpx.AsyncClient, urls: "itertools.cycle[str]") -> None:
        key = uuid.uuid4().hex
        body = {
            "type": "start_session",
            "parameters": {"prompt": "hello"},
            "labels": {"key": key},
            "max_attempts": self._max_attempts,
        }
        headers = {"Idempotency-Key": key} if self._keyed else {}
        self.ledger.keys.add(key)
        while True:
            call = http.post(f"{next(urls)}/runs", json=body, headers=headers, timeout=self._submit_seconds)
            answer = await self._heard("submit", call)
            if answer is not None and answer.status_code in {200, 201}:
                self.ledger.accepted[key] = answer.json()["run_id"]
                return
            if not self._keyed:
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def _read(self, http: httpx.AsyncClient, place: int) -> None:
        """Read an accepted run, its session, and all sessions, one after the other."""
        for turn in itertools.count(place):
            await asyncio.sleep(random.uniform(0, 2 * self._pace))
            url = self._urls[turn % len(self._urls)]
            run_ids = list(self.ledger.accepted.values())[-20:]
            paths = [f"/runs/{random.choice(run_ids)}"] * 3 if run_ids else []
            path = [*paths, "/runs?limit=20", "/sessions?limit=20", "/runners"][turn % (len(paths) + 3)]
            await self._heard("read", http.get(url + path))

    async def _serve(self, http: httpx.AsyncClient, place: int) -> None:
        urls = self._urls[place % len(self._urls) :] + self._urls[: place % len(self._urls)]
        runner = _Runner(self, http, urls, place, choosy=place >= self._runners)
        await runner.register()
        while True:
            await runner.poll(self._poll_seconds, self._work)

    async def _heard(self, kind: str, call: Answer) -> httpx.Response | None:
        """Record and return the answer; None without one."""
        try:
            answer = await call
        except httpx.HTTPError:
            self.ledger.unheard[kind] += 1
            return None
        self.ledger.note(kind, answer)
        return answer


class _Runner:
    """Runner: it polls, and reports each run it was given until the report is decided."""

    def __init__(
        self, traffic: Traffic, http: httpx.AsyncClient, urls: Sequence[str], place: int, *, choosy: bool
    ) -> None:
        self._traffic = traffic
        self._http = http
        self._urls = itertools.cycle(urls)
        self._url = next(self._urls)
        self._name = f"traffic-{place}"
        self._choosy = choosy
        self._runner_id = ""

    async def register(self) -> None:
        body = {
            "hostname": self._name,
            "project_dir": "/p",
            "executor_profile": "traffic",
            "executor": {"type": "autonomous"},
            "instance_id": uuid.uuid4().hex,
            "require_matching_tags": self._choosy,
        }
        answer = await self._decided("register", "/runner/register", body)
        self._runner_id = answer.json()["runner_id"]

    async def poll(self, seconds: float, work: float) -> None:
        query = {"runner_id": self._runner_id, "wait": str(seconds)}
        answer = await self._traffic._heard("poll", self._http.get(f"{self._url}/runner/runs", params=query))
        if answer is None or answer.status_code not in {200, 204}:
            self._url = next(self._urls)
            await asyncio.sleep(PAUSE_SECONDS)
            return
        if answer.status_code == 204:
            return
        run = answer.json()["run"]
        given = Delivery(run["run_id"], run["claim_token"], self._runner_id, run["attempt"])
        self._traffic.ledger.deliveries.append(given)
        self._traffic._reporting += 1
        try:
            if await self._report(given, "started") == 200:
                await asyncio.sleep(random.uniform(0, work))
                await self._report(given, "completed")
        finally:
            self._traffic._reporting -= 1

    async def _report(self, given: Delivery, outcome: str) -> int:
        body = {"runner_id": self._runner_id, "claim_token": given.claim_token}
        answer = await self._decided(outcome, f"/runner/runs/{given.run_id}/{outcome}", body)
        self._traffic.ledger.said.append(DecidedReport(given.run_id, given.claim_token, outcome, answer.status_code))
        return answer.status_code

    async def _decided(self, kind: str, path: str, body: dict[str, Any]) -> httpx.Response:
        while True:
            answer = await self._traffic._heard(kind, self._http.post(self._url + path, json=body))
            if answer is not None and answer.status_code < 500:
                return answer
            self._url = next(self._urls)
            await asyncio.sleep(PAUSE_SECONDS)
