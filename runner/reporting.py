"""News of runs on their way to the coordinator: each is sent until it is accepted, or refused as not ours any more."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from runner.backoff import Backoff
from runner.client import CoordinatorClient
from runner.errors import CoordinatorError, Refused, describe
from runner.membership import Membership
from runner.shapes import ClaimedRun, Event, ItemAnswer, Report

log = structlog.stdlib.get_logger("runner")


class Reporting:
    """The executor's Reporter over HTTP. Repeating is harmless: reports carry the claim's token, events a key."""

    def __init__(self, client: CoordinatorClient, membership: Membership) -> None:
        self._client = client
        self._membership = membership
        # Where a session lives: what every run of ours is bound with.
        self._hostname = membership.identity.hostname
        self._profile = membership.identity.executor_profile
        self._project_dir = membership.identity.project_dir

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
        return await self._deliver(
            run,
            "bind",
            lambda: self._client.bind(
                run["session_id"],
                executor_session_id=run["session_id"],
                hostname=self._hostname,
                executor_profile=self._profile,
                project_dir=self._project_dir,
            ),
        )

    async def happened(self, run: ClaimedRun, events: list[Event]) -> bool:
        """Events of the run, in order."""
        fenced: list[Event] = [{**event, "claim_token": run["claim_token"]} for event in events]
        return await self._deliver(run, "events", lambda: self._client.append_events(run["session_id"], fenced))

    async def _report(self, run: ClaimedRun, report: Report) -> bool:
        return await self._deliver(
            run,
            report["outcome"],
            lambda: self._client.report(self._membership.runner_id, [report]),
            is_essential=True,
        )

    async def _deliver(
        self, run: ClaimedRun, what: str, call: Callable[[], Awaitable[Any]], *, is_essential: bool = False
    ) -> bool:
        """Call until it is answered; False when the answer is that the run is not ours, or that it is gone.

        What is refused for itself (an event that is too large, say) is dropped unless it is essential: sending it
        again would not help, and the run goes on.
        """
        backoff = Backoff()
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
                log.warning("retrying", what=what, run_id=run["run_id"], reason=str(error))
                await asyncio.sleep(backoff.pause())
                continue
            if refusal is None:
                return True
            if refusal.passing:
                log.warning("retrying", what=what, run_id=run["run_id"], reason=str(refusal))
                await asyncio.sleep(max(backoff.pause(), refusal.retry_after or 0.0))
                continue
            log.warning("refused", what=what, run_id=run["run_id"], reason=str(refusal))
            return not is_essential and refusal.status not in {401, 404, 409}


def _refusal(answer: Any) -> Refused | None:
    """The worst of a bulk answer's items: one that says the run is not ours, else one to repeat, else any."""
    items: list[ItemAnswer] = answer if isinstance(answer, list) else []
    refused = [item for item in items if item["code"] >= 400]
    refused.sort(key=lambda item: (item["code"] not in {401, 404, 409}, item["code"] < 500))
    return Refused(refused[0]["code"], describe(refused[0].get("detail"))) if refused else None
