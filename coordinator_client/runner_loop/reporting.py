from collections import deque
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

from coordinator_client.backoff import Backoff
from coordinator_client.client import CoordinatorClient
from coordinator_client.errors import CallFailed, Refused, Unreachable, describe
from coordinator_client.runner_loop.event_log import log
from coordinator_client.runner_loop.event_requests import (
    LEAST_REQUEST_BYTES,
    MOST_REQUEST_BYTES,
    in_requests,
    shortened,
    size_of,
)
from coordinator_client.runner_loop.registration import RunnerRegistration
from coordinator_client.types import ClaimedRun, ItemAnswer, NewEvent, Report

# Characters of the error that stay in a report too large for a proxy.
SHORT_ERROR_LENGTH = 1000
# Failures of a large event, while other calls are answered, after which it is shortened.
CUT_OFTEN = 5


class Answer(StrEnum):
    ACCEPTED = "accepted"
    CLAIM_LOST = "claim lost"  # the run, or its session, belongs to another runner or is gone
    TOO_LARGE = "too large"  # a smaller request may come through
    REFUSED = "refused"  # invalid: sending it again would not help


class Reporting:
    """Reporter over HTTP. Repeating is harmless: reports carry the claim token, events a key."""

    def __init__(self, client: CoordinatorClient, registration: RunnerRegistration) -> None:
        self._client = client
        self._registration = registration
        # Halved by each 413.
        self._most_bytes = MOST_REQUEST_BYTES

    async def started(self, run: ClaimedRun) -> bool:
        """Report the start; repeated for a running run, it tells whether the claim still holds."""
        return await self._report(
            run, {"run_id": run["run_id"], "claim_token": run["claim_token"], "outcome": "started"}
        )

    async def ended(self, run: ClaimedRun, report: Report) -> bool:
        return await self._report(run, report)

    async def bound(self, run: ClaimedRun) -> bool:
        identity = self._registration.identity
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
        return answer is not Answer.CLAIM_LOST

    async def happened(self, run: ClaimedRun, events: list[NewEvent]) -> bool:
        """Append events of the run, in order.

        A request answered with 413 is halved, down to single events; a single event is shortened, names the cut fields
        in `truncated`, and is preceded by a notice. Events that the coordinator refuses are replaced by a notice.
        """
        fenced: list[NewEvent] = [{**event, "claim_token": run["claim_token"]} for event in events]
        waiting = deque(in_requests(fenced, self._most_bytes))
        while waiting:
            batch = waiting.popleft()
            match await self._append(run, batch):
                case Answer.CLAIM_LOST:
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

    async def _append(self, run: ClaimedRun, events: list[NewEvent]) -> Answer:
        size = size_of(events)
        return await self._deliver(
            run,
            "events",
            lambda: self._client.append_events(run["session_id"], events),
            may_be_too_large=len(events) > 1 or size > LEAST_REQUEST_BYTES,
            may_be_cut=size > MOST_REQUEST_BYTES,
        )

    def _smaller(self, batch: list[NewEvent]) -> list[list[NewEvent]]:
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
            return self._client.report(self._registration.runner_id, [report], traceparent=run.get("traceparent"))

        what, error = report["outcome"], report.get("error", "")
        answer = await self._deliver(run, what, send, may_be_too_large=len(error) > SHORT_ERROR_LENGTH)
        if answer is Answer.TOO_LARGE:
            cut = f"… [{len(error) - SHORT_ERROR_LENGTH} characters cut]"
            report = {**report, "error": error[:SHORT_ERROR_LENGTH] + cut}
            answer = await self._deliver(run, what, send)
        if answer is Answer.REFUSED and report["outcome"] == "released":
            # A coordinator of the previous release knows no `released`: report the run as failed.
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
        """Call until a coordinator answers; return the outcome, TOO_LARGE only if `may_be_too_large`.

        Responses of anything else (a proxy's 404, 401, 502 or page) count as unreachable. With `may_be_cut` the outcome
        is TOO_LARGE also after CUT_OFTEN failures while other calls were answered: some proxies cut the connection
        instead of answering 413.
        """
        backoff = Backoff()
        failures, answers = 0, self._client.answers
        while True:
            generation = self._registration.generation
            try:
                refusal = _refusal(await call())
            except Refused as refused:
                if refused.status == 401 and not self._registration.is_leaving:
                    await self._registration.rejoin(generation)
                    continue
                refusal = refused
            except CallFailed as error:
                failures += 1
                is_cut = may_be_cut and failures >= CUT_OFTEN and self._client.answers > answers
                if is_cut or (may_be_too_large and isinstance(error, Unreachable) and error.too_large):
                    return Answer.TOO_LARGE
                log.warning("retrying", what=what, run_id=run["run_id"], reason=str(error))
                await backoff.sleep(error.retry_after)
                continue
            if refusal is None:
                return Answer.ACCEPTED
            if refusal.status == 413 and may_be_too_large:
                return Answer.TOO_LARGE
            if refusal.is_transient:
                log.warning("retrying", what=what, run_id=run["run_id"], reason=str(refusal))
                await backoff.sleep(refusal.retry_after)
                continue
            log.warning("refused", what=what, run_id=run["run_id"], reason=str(refusal))
            return Answer.CLAIM_LOST if refusal.status in {401, 404, 409} else Answer.REFUSED


def _notice(event: NewEvent, words: str) -> NewEvent:
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
    """Return the worst item of a bulk response: a lost claim first, then one to retry, then any other; None without
    errors.
    """
    items: list[ItemAnswer] = answer if isinstance(answer, list) else []
    refused = [item for item in items if item["code"] >= 400]
    refused.sort(key=lambda item: (item["code"] not in {401, 404, 409}, item["code"] < 500))
    return Refused(refused[0]["code"], describe(refused[0].get("detail"))) if refused else None
