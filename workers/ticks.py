"""Ticker: runs every duty in time, by one enqueuer per time slot while Redis answers, else by Postgres alone."""

import math
import random
import threading
import time
from collections.abc import Sequence
from typing import Final

from runtime.logs import log
from runtime.names import slot_key
from runtime.redis_client import FAILED, fault_of, sync_client
from runtime.wakeups import ActorWakeupSender
from workers.actors import attempt
from workers.duties import Duty

logger = log(__name__)

REDIS_TIMEOUT_SECONDS: Final = 0.5
WITHOUT_REDIS_SECONDS: Final = 10.0
LONGEST_PAUSE_SECONDS: Final = 1.0
SHORTEST_PAUSE_SECONDS: Final = 0.01
LONGEST_CHECK_SECONDS: Final = 60.0
# Check the age a little before the interval is over: without Redis several tickers check in turn, and none may skip
# one.
WITHOUT_REDIS_INTERVALS: Final = 0.9
OVERDUE_INTERVALS: Final = 2.0


class Ticker(threading.Thread):
    def __init__(self, url: str, duties: Sequence[Duty]) -> None:
        super().__init__(name="ticker", daemon=True)
        self._client = sync_client(
            url, answer_timeout=REDIS_TIMEOUT_SECONDS, connect_timeout=REDIS_TIMEOUT_SECONDS, retries=0
        )
        self._sender = ActorWakeupSender(self._client)
        self._duties = duties
        self._last_slots: dict[str, int] = {}
        self._next_check = dict.fromkeys((duty.actor for duty in duties), 0.0)
        self._without_redis_until = 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            pause = LONGEST_PAUSE_SECONDS
            try:
                pause = self.tick()
            except Exception:
                logger.exception("tick failed")
        self._client.close()

    def stop(self, within: float) -> None:
        """End after the duty that runs now, if it ends in time."""
        self._ended.set()
        self.join(within)

    def tick(self) -> float:
        """Enqueue due duties of slots we win, run overdue ones; return the seconds until the next slot begins."""
        pause = self._enqueue()
        without_redis = pause is None
        now = time.monotonic()
        for duty in self._duties:
            if now < self._next_check[duty.actor] or self._ended.is_set():
                continue
            self._next_check[duty.actor] = now + min(duty.interval, LONGEST_CHECK_SECONDS) * random.uniform(0.9, 1.1)
            self._run_if_older(duty, duty.interval * (WITHOUT_REDIS_INTERVALS if without_redis else OVERDUE_INTERVALS))
        return min(duty.interval for duty in self._duties) / 2 if pause is None else pause

    def _run_if_older(self, duty: Duty, older_than: float) -> None:
        def work() -> None:
            if duty.if_older(older_than):
                logger.debug("duty run by the ticker", actor=duty.actor)

        try:
            attempt(duty.actor, work)
        except Exception:
            # Go on: the other duties must not wait until this one is fixed.
            logger.exception("duty failed", actor=duty.actor)

    def _enqueue(self) -> float | None:
        """Enqueue due duties; return the seconds until the next slot, or None when Redis does not answer."""
        if time.monotonic() < self._without_redis_until:
            return None
        try:
            now = self._redis_time()
            for duty in self._duties:
                self._enqueue_one(duty, math.floor(now / duty.interval))
        except FAILED as error:
            self._without_redis_until = time.monotonic() + WITHOUT_REDIS_SECONDS
            logger.warning("Redis away; duties run by Postgres alone", fault=fault_of(error), error=str(error))
            return None
        rest = min(duty.interval - now % duty.interval for duty in self._duties)
        return min(rest + random.uniform(SHORTEST_PAUSE_SECONDS, 2 * SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)

    def _enqueue_one(self, duty: Duty, slot: int) -> None:
        if self._last_slots.get(duty.actor) == slot:
            return
        if self._wins(duty, slot):
            self._sender.send(duty.actor)
        self._last_slots[duty.actor] = slot

    def _wins(self, duty: Duty, slot: int) -> bool:
        life = math.ceil(duty.interval * 2000)
        return bool(self._client.set(slot_key(duty.actor, slot), b"1", nx=True, px=life))

    def _redis_time(self) -> float:
        seconds, microseconds = self._client.time()
        return float(seconds) + float(microseconds) / 1e6
