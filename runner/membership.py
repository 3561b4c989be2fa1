"""Being a registered runner: registration until accepted, again when forgotten, and the way out."""

import asyncio

import structlog

from runner.backoff import Backoff
from runner.client import CoordinatorClient
from runner.errors import CoordinatorError, Refused
from runner.shapes import Identity

# How long a runner that leaves tries to say so.
FAREWELL_SECONDS = 5.0

log = structlog.stdlib.get_logger("runner")


class RegistrationRefused(Exception):
    """The coordinator will not take this registration, however often it is asked; the message says why."""


class Membership:
    """One registration; `generation` counts how often it was accepted."""

    def __init__(self, client: CoordinatorClient, identity: Identity) -> None:
        self._client = client
        self.identity = identity
        self._joining = asyncio.Lock()
        self.generation = 0
        self.is_leaving = False
        self.runner_id = ""
        self.poll_seconds = 30.0
        self.heartbeat_seconds = 60.0

    async def join(self) -> None:
        """Register, again and again until accepted: the coordinator may be away, or our former self not yet lost.

        Raises RegistrationRefused when what we say of ourselves is not acceptable.
        """
        backoff = Backoff(first=0.5, most=5.0)
        while not await self._register():
            await backoff.rest()

    async def _register(self) -> bool:
        try:
            answer = await self._client.register(self.identity)
        except Refused as refused:
            if not refused.passing and refused.status not in {408, 409}:
                raise RegistrationRefused(str(refused)) from None
            log.warning("registration_refused", reason=str(refused))
            return False
        except CoordinatorError as error:
            log.warning("registration_failed", reason=str(error))
            return False
        self.runner_id = answer["runner_id"]
        self.poll_seconds = float(answer["poll_timeout_seconds"])
        self.heartbeat_seconds = float(answer["heartbeat_interval_seconds"])
        self.generation += 1
        if warning := answer.get("warning"):
            log.warning("registration_warning", warning=warning)
        log.info("registered", runner_id=self.runner_id, profile=self.identity.executor_profile, url=self._client.url)
        return True

    async def rejoin(self, generation: int) -> None:
        """Register again after a 401; `generation` is the one that was refused: one of many callers does it for all."""
        async with self._joining:
            if generation == self.generation:
                await self.join()

    async def leave(self) -> None:
        """Say goodbye, so that what we held goes on elsewhere at once; silence would tell it later."""
        self.is_leaving = True
        backoff = Backoff(first=0.2, most=1.0)
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                while not await self._deregister():
                    await backoff.rest()
        except TimeoutError:
            log.warning("left_without_a_word", runner_id=self.runner_id)

    async def _deregister(self) -> bool:
        try:
            await self._client.deregister(self.runner_id, itself=True)
        except Refused as refused:
            return not refused.passing
        except CoordinatorError:
            return False
        log.info("left", runner_id=self.runner_id)
        return True
