"""Have one parked poll claim each submitted run at once, in this process or another; dispatch gets the others."""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, TypeAlias

import redis.asyncio

from app.polls.woken import SubmittedRun, WokenPolls
from app.writes.attempts import Attempts, Unavailable
from models.claims.dispatch import ParkedPoll, recent_polls
from models.claims.matching import Demands
from models.core.errors import CoordinatorError
from models.core.statuses import RunType
from models.runs.submission import NewRun, Submitted, demands_of_run
from runtime import metrics
from runtime.loops import run_forever
from runtime.pubsub import publish_submissions
from runtime.redis_client import FAILED

# Wake polls for so many runs of one commit; more are given out by fewer statements in dispatch.
MOST_WOKEN: Final = 32
# Look for polls elsewhere among so many, those first that were parked last.
MOST_READ: Final = 200
# Choose from one read for so long: a poll that has ended meanwhile costs a message, and its instance chooses another.
FRESH_SECONDS: Final = 0.05
PAUSE_AFTER_FAILURE_SECONDS: Final = 1.0

Outcome: TypeAlias = Submitted | CoordinatorError


class SubmissionWakeups:
    """Wake-ups of one web process after the commits of submissions, in front of the dispatch actor.

    ``wake_dispatch`` is called for each run that no poll was woken for, and whenever a wake-up may be lost.
    """

    def __init__(
        self,
        looks: Attempts,
        client: redis.asyncio.Redis,
        instance: str,
        woken: WokenPolls,
        wake_dispatch: Callable[[], None],
    ) -> None:
        self._looks = looks
        self._client = client
        self._instance = instance
        self._woken = woken
        self._wake_dispatch = wake_dispatch
        self._left: list[SubmittedRun] = []
        self._due = asyncio.Event()
        self._read: asyncio.Task[list[ParkedPoll]] | None = None
        self._read_at = float("-inf")

    def committing(self, items: Sequence[NewRun]) -> None:
        """Begin to read the polls of other processes while the submissions are written, if those here do not do."""
        demanded = {demands for item in items[:MOST_WOKEN] if (demands := _known_demands(item)) is not None}
        if not all(self._woken.may_wake(demands) for demands in demanded):
            self._polls_elsewhere()

    def committed(self, items: Sequence[NewRun], results: Sequence[Outcome]) -> None:
        """Wake a poll for each new run; wake dispatch if there are others. Never blocks, never raises."""
        runs = [
            SubmittedRun(result.run_id, result.demands or demands)
            for item, result in zip(items, results, strict=True)
            if isinstance(result, Submitted) and not result.replayed and (demands := _known_demands(item)) is not None
        ]
        self._left += self._woken.wake(runs[:MOST_WOKEN])
        if self._left:
            self._due.set()
        others = sum(isinstance(result, Submitted) for result in results) - min(len(runs), MOST_WOKEN)
        if others:
            self._give_to_dispatch("not looked for", others)

    def received(self, messages: Iterable[Mapping[str, Any]]) -> None:
        """Wake the polls that another process chose, or others that may take the runs."""
        for message in messages:
            given = message["demands"]
            demands = Demands(**{**given, "tags": tuple(given["tags"])})
            if not self._woken.wake_named(message["poll_id"], SubmittedRun(message["run_id"], demands)):
                self._give_to_dispatch("none waits")

    async def send_forever(self) -> None:
        await run_forever(
            self._send,
            failure="polls not woken for submissions, left to dispatch",
            woken=self._due,
            pause_after_failure=PAUSE_AFTER_FAILURE_SECONDS,
            expected=FAILED,
        )

    async def _send(self) -> None:
        self._due.clear()
        runs, self._left = self._left, []
        try:
            chosen = self._choose(runs, await self._polls_elsewhere())
            heard = await publish_submissions(self._client, chosen)
        except BaseException:
            self._give_to_dispatch("failed", len(runs))
            raise
        sent = sum(len(messages) for instance, messages in chosen.items() if instance in heard)
        metrics.SUBMISSION_WAKEUPS.labels("sent").inc(sent)
        if sent < len(runs):
            self._give_to_dispatch("none waits", len(runs) - sent)

    def _give_to_dispatch(self, outcome: str, number: int = 1) -> None:
        metrics.SUBMISSION_WAKEUPS.labels(outcome).inc(number)
        self._wake_dispatch()

    def _choose(self, runs: Iterable[SubmittedRun], polls: list[ParkedPoll]) -> dict[str, list[dict[str, Any]]]:
        """Take a poll for each run out of those read, by chance: so two processes seldom choose the same one."""
        chosen: dict[str, list[dict[str, Any]]] = {}
        random.shuffle(polls)
        for run in runs:
            poll = next((poll for poll in polls if poll.offer.satisfies(run.demands)), None)
            if poll is not None:
                polls.remove(poll)
                message = {"poll_id": poll.poll_id, "run_id": run.run_id, "demands": asdict(run.demands)}
                chosen.setdefault(poll.instance, []).append(message)
        return chosen

    def _polls_elsewhere(self) -> "asyncio.Task[list[ParkedPoll]]":
        now = asyncio.get_running_loop().time()
        if self._read is None or now >= self._read_at + FRESH_SECONDS:
            self._read_at = now
            self._read = asyncio.create_task(self._look())
        return self._read

    async def _look(self) -> list[ParkedPoll]:
        try:
            return await self._looks.autocommit(recent_polls, self._instance, MOST_READ)
        except Unavailable:
            return []


def _known_demands(item: NewRun) -> Demands | None:
    """Return the demands of a run that is ready at once, as far as they are known without its session."""
    if item.not_before is not None or item.delay_seconds is not None:
        return None
    if item.type is RunType.RESUME:
        return None
    return demands_of_run(item, None)
