"""News of runs on their way to the coordinator: each is sent until it is accepted, or refused as not ours any more."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

import structlog

from coordinator_client.backoff import Backoff
from coordinator_client.client import CoordinatorClient
from coordinator_client.errors import CoordinatorError, Refused, Unreachable, describe
from coordinator_client.types import ClaimedRun, Event, ItemAnswer, Report
from runner.event_requests import LEAST_REQUEST_BYTES, MOST_REQUEST_BYTES, in_requests, shortened, size_of
from runner.registration import Membership

log = structlog.stdlib.get_logger("runner")

# A report that is too large for a proxy keeps so much of its error.
SHORT_ERROR_LENGTH = 1000
# A large event that failed so often, while other calls were answered, does not come through.
CUT_OFTEN = 5


class Answer(StrEnum):
    """How the delivery of something about a run ended."""

    ACCEPTED = "accepted"
    NOT_OURS = "not ours"  # the run, or its session, is not ours any more, or gone
    TOO_LARGE = "too large"  # a smaller request may come through
    REFUSED = "refused"  # for itself: sending it again would not help


class Reporting:
    """The executor's Reporter over HTTP. Repeating is harmless: reports carry the claim's token, events a key."""

    def __init__(self, client: CoordinatorClient, membership: Membership) -> None:
        self._client = client
        self._membership = membership
        # Halved by each 413 on the way.
        self._most_bytes = MOST_REQUEST_BYTES

    async def started(self, run: ClaimedRun) -> bool:
        """The run may begin. Also asks, by repeating it, whether a running one is still ours."""
        return await self._report(
            run, {"run_id": run["run_id"], "claim_token": run["claim_token"], "outcome": "started"}
        )

    async def ended(self, run: ClaimedRun, report: Report) -> bool:
        """The run has completed, failed or stopped."""
        return await self._report(run, report)

    async def bound(self, run: ClaimedRun) -> bool:
        """The run's session lives here from now on."""
        identity = self._membership.identity
        answer = await self._deliver(
            run,
            "bind",
            lambda: self._client.bind(
                run["session_id"],
                executor_session_id=run["session_id"],
                hostname=identity.hostname,
                executor_profile=identity.executor_profile,
                project_dir=identity.project_dir,
            ),
        )
        return answer is not Answer.NOT_OURS

    async def happened(self, run: ClaimedRun, events: list[Event]) -> bool:
        """Events of the run, in order.

        A request that is too large for something on the way is halved, down to single events; those are shortened,
        which the event names in `truncated` and another one says in words. What the coordinator refuses for itself is
        replaced by words as well.
        """
        fenced: list[Event] = [{**event, "claim_token": run["claim_token"]} for event in events]
        waiting = deque(in_requests(fenced, self._most_bytes))
        while waiting:
            batch = waiting.popleft()
            match await self._append(run, batch):
                case Answer.NOT_OURS:
                    return False
                case Answer.TOO_LARGE:
                    self._most_bytes = max(LEAST_REQUEST_BYTES, min(self._most_bytes, size_of(batch)) // 2)
                    smaller = self._smaller(batch)
                    waiting.extendleft(reversed(smaller))
                case Answer.REFUSED:
                    await self._append(run, [_notice(batch[0], f"{len(batch)} events were refused and are not stored")])
                case Answer.ACCEPTED:
                    pass
        return True

    async def _append(self, run: ClaimedRun, events: list[Event]) -> Answer:
        size = size_of(events)
        return await self._deliver(
            run,
            "events",
            lambda: self._client.append_events(run["session_id"], events),
            may_be_too_large=len(events) > 1 or size > LEAST_REQUEST_BYTES,
            may_be_cut=size > MOST_REQUEST_BYTES,
        )

    def _smaller(self, batch: list[Event]) -> list[list[Event]]:
        """The same events in smaller requests."""
        if len(batch) > 1:
            middle = len(batch) // 2
            return [batch[:middle], batch[middle:]]
        (event,) = batch
        short = shortened(event, self._most_bytes)
        if "truncated" in event:
            return [[short]]
        log.warning("event_shortened", type=event["event_type"], bytes=size_of(batch), most=self._most_bytes)
        names = ", ".join(short["truncated"])
        words = f"A {event['event_type']} was too large for the way to the coordinator (HTTP 413): shortened {names}"
        return [[_notice(event, words)], [short]]

    async def _report(self, run: ClaimedRun, report: Report) -> bool:
        def send() -> Awaitable[Any]:
            return self._client.report(self._membership.runner_id, [report])

        what, error = report["outcome"], report.get("error", "")
        answer = await self._deliver(run, what, send, may_be_too_large=len(error) > SHORT_ERROR_LENGTH)
        if answer is Answer.TOO_LARGE:
            cut = f"… [{len(error) - SHORT_ERROR_LENGTH} characters cut]"
            report = {**report, "error": error[:SHORT_ERROR_LENGTH] + cut}
            answer = await self._deliver(run, what, send)
        if answer is Answer.REFUSED and report["outcome"] == "released":
            # A coordinator of the release before, which has no way to give a run back.
            failed: Report = {**report, "outcome": "failed", "error": report.get("reason", "")}
            return await self._report(run, failed)
        return answer is Answer.ACCEPTED

    async def _deliver(
        self,
        run: ClaimedRun,
        what: str,
        call: Callable[[], Awaitable[Any]],
        *,
        may_be_too_large: bool = False,
        may_be_cut: bool = False,
    ) -> Answer:
        """Call until a coordinator answers, and say how; TOO_LARGE only if `may_be_too_large`.

        What others answer in its place (a proxy's 404, 401, 502 or page) is as if it had not been reached. With
        `may_be_cut` it is TOO_LARGE also if CUT_OFTEN tries came to nothing while others of our calls were answered:
        some proxies cut the connection instead of answering 413.
        """
        backoff = Backoff()
        failures, answers = 0, self._client.answers
        while True:
            generation = self._membership.generation
            try:
                refusal = _refusal(await call())
            except Refused as refused:
                if refused.status == 401 and not self._membership.is_leaving:
                    await self._membership.rejoin(generation)
                    continue
                refusal = refused
            except CoordinatorError as error:
                failures += 1
                is_cut = may_be_cut and failures >= CUT_OFTEN and self._client.answers > answers
                if is_cut or (may_be_too_large and isinstance(error, Unreachable) and error.too_large):
                    return Answer.TOO_LARGE
                log.warning("retrying", what=what, run_id=run["run_id"], reason=str(error))
                await asyncio.sleep(max(backoff.pause(), getattr(error, "retry_after", None) or 0.0))
                continue
            if refusal is None:
                return Answer.ACCEPTED
            if refusal.status == 413 and may_be_too_large:
                return Answer.TOO_LARGE
            if refusal.passing:
                log.warning("retrying", what=what, run_id=run["run_id"], reason=str(refusal))
                await asyncio.sleep(max(backoff.pause(), refusal.retry_after or 0.0))
                continue
            log.warning("refused", what=what, run_id=run["run_id"], reason=str(refusal))
            return Answer.NOT_OURS if refusal.status in {401, 404, 409} else Answer.REFUSED


def _notice(event: Event, words: str) -> Event:
    """A message of ours about an event, which it stands before or in place of."""
    return {
        "event_type": "message",
        "session_id": event["session_id"],
        "timestamp": event["timestamp"],
        "event_key": f"{event['event_key']}-n",
        "claim_token": event["claim_token"],
        "role": "system",
        "content": [{"type": "text", "text": f"[runner] {words}", "notice": True}],
    }


def _refusal(answer: Any) -> Refused | None:
    """The worst of a bulk answer's items: one that says the run is not ours, else one to repeat, else any."""
    items: list[ItemAnswer] = answer if isinstance(answer, list) else []
    refused = [item for item in items if item["code"] >= 400]
    refused.sort(key=lambda item: (item["code"] not in {401, 404, 409}, item["code"] < 500))
    return Refused(refused[0]["code"], describe(refused[0].get("detail"))) if refused else None
