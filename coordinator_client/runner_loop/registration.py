import asyncio
from dataclasses import replace
from typing import Protocol

from coordinator_client.backoff import Backoff
from coordinator_client.client import CoordinatorClient
from coordinator_client.errors import CallFailed, Refused
from coordinator_client.requests import Identity
from coordinator_client.runner_loop import clock
from coordinator_client.runner_loop.event_log import log

# Seconds for which a leaving runner tries to deregister.
DEREGISTER_SECONDS = 5.0
# A previous runner of our number that did not leave is stale after 30 s, and its number is ours then; a live one stays.
PREVIOUS_STALE_SECONDS = 40.0


class RegistrationRefused(Exception):
    """Raised when the coordinator will never accept this runner, such as for an invalid token."""


class Slot(Protocol):
    """Number that this process holds among the runners of its kind on this machine."""

    was_abandoned: bool

    @property
    def profile(self) -> str: ...
    def advance(self) -> None:
        """Take the next free number. Raises OSError when all are taken."""

    def registered(self) -> None: ...
    def left(self) -> None: ...


class RunnerRegistration:
    """Registration of this process; `generation` counts how often it was accepted.

    With a `slot` the profile follows from its number; a number that another runner has registered is replaced by the
    next.
    """

    def __init__(self, client: CoordinatorClient, identity: Identity, slot: Slot | None = None) -> None:
        self._client = client
        self.identity = identity
        self._slot = slot
        self._previous_until = clock.elapsed() + (PREVIOUS_STALE_SECONDS if slot and slot.was_abandoned else 0.0)
        self._joining = asyncio.Lock()
        self.generation = 0
        self._renumbered = False
        self.is_leaving = False
        self.runner_id = ""
        self.poll_seconds = 30.0
        self.heartbeat_seconds = 60.0

    async def join(self) -> None:
        """Register until accepted: the coordinator may be away, or our previous process not yet stale.

        Raises RegistrationRefused when the registration is invalid.
        """
        backoff = Backoff(first=0.5, longest=5.0)
        while not await self._register():
            if not self._renumbered:
                await backoff.sleep()

    async def _register(self) -> bool:
        try:
            answer = await self._client.register(self.identity)
        except Refused as refused:
            if not refused.is_transient and refused.status not in {408, 409}:
                raise RegistrationRefused(str(refused)) from None
            log.warning("registration_refused", reason=str(refused))
            self._renumbered = self._renumber(refused)
            return False
        except CallFailed as error:
            self._renumbered = False
            log.warning("registration_failed", reason=str(error))
            return False
        self.runner_id = answer["runner_id"]
        self.poll_seconds = float(answer["poll_timeout_seconds"])
        self.heartbeat_seconds = float(answer["heartbeat_interval_seconds"])
        self.generation += 1
        if self._slot is not None:
            self._slot.registered()
        if warning := answer.get("warning"):
            log.warning("registration_warning", warning=warning)
        log.info("registered", runner_id=self.runner_id, profile=self.identity.executor_profile, url=self._client.url)
        return True

    def _renumber(self, refused: Refused) -> bool:
        """Take the next number if another runner has ours; return True if done.

        Not while the other runner may be our previous process, and not after the first registration: sessions are bound
        to the identity.
        """
        is_duplicate = isinstance(refused.detail, dict) and refused.detail.get("error") == "duplicate_runner"
        if self._slot is None or self.generation or not is_duplicate or clock.elapsed() < self._previous_until:
            return False
        try:
            self._slot.advance()
        except OSError as error:
            raise RegistrationRefused(str(error)) from None
        self.identity = replace(self.identity, executor_profile=self._slot.profile)
        log.info("next_number", profile=self.identity.executor_profile)
        return True

    async def rejoin(self, generation: int) -> None:
        """Register again after a 401 of registration `generation`; concurrent callers register once."""
        async with self._joining:
            if generation == self.generation:
                await self.join()

    async def leave(self) -> None:
        """Deregister, so that our runs go on elsewhere at once instead of after our silence."""
        self.is_leaving = True
        backoff = Backoff(first=0.2, longest=1.0)
        try:
            async with asyncio.timeout(DEREGISTER_SECONDS):
                while not await self._deregister():
                    await backoff.sleep()
        except TimeoutError:
            log.warning("deregistration_failed", runner_id=self.runner_id)

    async def _deregister(self) -> bool:
        try:
            await self._client.deregister(self.runner_id, is_caller=True)
        except Refused as refused:
            if refused.is_transient:
                return False
        except CallFailed:
            return False
        if self._slot is not None:
            self._slot.left()
        log.info("left", runner_id=self.runner_id)
        return True
