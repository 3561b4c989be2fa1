import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx

from chaos.ledger import EXPECTED, Failure, Ledger
from chaos.schedule import BALANCER, WEBS

ANSWER_SECONDS = 40.0
PAUSE_SECONDS = 0.3


@dataclass
class Wire:
    http: httpx.AsyncClient
    ledger: Ledger
    addresses: Mapping[str, str]
    random: Random

    def anywhere(self) -> str:
        return self.random.choice((*WEBS, *[BALANCER] * len(WEBS)))

    async def call(self, kind: str, method: str, path: str, *, where: str = "", **how: Any) -> httpx.Response | None:
        where = where or self.anywhere()
        begun = time.monotonic()
        try:
            answer = await self.http.request(method, self.addresses[where] + path, **how)
        except httpx.HTTPError as error:
            self.ledger.failures.append(Failure(kind, where, begun, time.monotonic(), None, _with_causes(error)))
            return None
        self.ledger.answers[kind, answer.status_code] += 1
        if answer.status_code not in EXPECTED[kind]:
            failure = Failure(kind, where, begun, time.monotonic(), answer.status_code, answer.text[:500])
            self.ledger.failures.append(failure)
        return answer

    async def decided(self, kind: str, method: str, path: str, **how: Any) -> tuple[httpx.Response, float]:
        """Repeat a call until it is answered with anything but 5xx; return the answer and the time when it was sent."""
        while True:
            begun = time.monotonic()
            answer = await self.call(kind, method, path, **how)
            if answer is not None and answer.status_code < 500:
                return answer, begun
            await asyncio.sleep(PAUSE_SECONDS * self.random.uniform(0.5, 1.5))

    async def submit(self, key: str, body: Mapping[str, Any]) -> tuple[str, str] | None:
        answer, _ = await self.decided("submit", "POST", "/runs", json=body, headers={"Idempotency-Key": key})
        if answer.status_code not in {200, 201}:
            self.ledger.refused[f"{answer.status_code} {answer.text[:60]}"] += 1
            return None
        given = answer.json()
        self.ledger.accept(key, given["run_id"], given["session_id"])
        return given["run_id"], given["session_id"]

    async def say(self, session_id: str, key: str, **fields: Any) -> bool:
        event = {
            "event_type": "message",
            "session_id": session_id,
            "timestamp": "2026-01-01T00:00:00+00:00",
            "content": key,
            "event_key": key,
            **fields,
        }
        answer, _ = await self.decided("event", "POST", f"/sessions/{session_id}/events", json=event)
        if answer.status_code == 201:
            self.ledger.events.setdefault(session_id, []).append(key)
        return answer.status_code == 201


def _with_causes(error: BaseException) -> str:
    texts = [repr(error)]
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
        texts.append(repr(error))
    return " from ".join(texts)


def http_client() -> httpx.AsyncClient:
    """Return a client that closes connections unused for 1 s: a draining web process keeps them longer."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200, keepalive_expiry=1.0)
    return httpx.AsyncClient(timeout=ANSWER_SECONDS, limits=limits, trust_env=False)
