import asyncio
import uuid
from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Any

from chaos.runners import CHILDREN, TAG
from chaos.wire import Wire

DEPLOYED_TAG = "deployed"
# Sessions for events, which no client stops or deletes.
KEPT = ("kept-1", "kept-2")
_LONGEST_BACKLOG = 150


@dataclass
class Clients:
    wire: Wire
    rate: float
    random: Random
    backlog: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    # Sessions with plain runs, the newest last, without parents and children.
    _sessions: deque[str] = field(default_factory=lambda: deque(maxlen=200))

    async def begin(self) -> None:
        for session_id in KEPT:
            await self.wire.submit(uuid.uuid4().hex, {**_plain(), "session_id": session_id})

    async def submit(self, share: float) -> None:
        while not self.over.is_set():
            await self._pause(1 / (self.rate * share))
            if self.backlog < _LONGEST_BACKLOG:
                await self._submit_one()

    async def write(self, pace: float) -> None:
        while not self.over.is_set():
            await self._pause(pace)
            await self.wire.say(self.random.choice(KEPT), uuid.uuid4().hex)

    async def stop(self, pace: float) -> None:
        while not self.over.is_set():
            await self._pause(pace)
            if self._sessions:
                await self.stop_one(self.random.choice(list(self._sessions)[-30:]))

    async def delete(self, pace: float) -> None:
        while not self.over.is_set():
            await self._pause(pace)
            if len(self._sessions) > 100:
                session_id = self._sessions[self.random.randrange(50)]
                self.wire.ledger.delete_asked.add(session_id)
                answer, _ = await self.wire.decided("delete", "DELETE", f"/sessions/{session_id}")
                if answer.status_code != 409:
                    # 404 counts too: an earlier try succeeded without an answer.
                    self.wire.ledger.deleted.add(session_id)

    async def look(self, pace: float) -> None:
        while not self.over.is_set():
            await self._pause(pace)
            paths = ["/runs?limit=20", "/sessions?limit=20", "/runners"]
            if self._sessions:
                paths.append(f"/sessions/{self.random.choice(self._sessions)}")
            await self.wire.call("read", "GET", self.random.choice(paths))

    async def stop_one(self, session_id: str) -> None:
        await self.wire.decided("stop", "POST", f"/sessions/{session_id}/stop")

    async def resume(self, session_id: str) -> None:
        body = {"type": "resume_session", "session_id": session_id, "parameters": {"prompt": "work"}}
        await self.wire.submit(uuid.uuid4().hex, body)

    async def _submit_one(self) -> None:
        key, chance = uuid.uuid4().hex, self.random.random()
        body: dict[str, Any] = {**_plain(), "labels": {"key": key}, "max_attempts": self.random.randint(1, 3)}
        if chance < 0.05:
            body["parameters"] = {"prompt": f"{CHILDREN}{self.random.randint(1, 3)}"}
        elif chance < 0.12:
            body["additional_demands"] = {"tags": [DEPLOYED_TAG]}
            body["parameters"] = {"prompt": self.random.choice(("at once", "sleep 1", "sleep 3", "fail 1"))}
        elif chance < 0.2 and self._sessions:
            body |= {"type": "resume_session", "session_id": self.random.choice(self._sessions)}
        elif chance < 0.25:
            body["not_before"] = self.random.uniform(0, 5)
        accepted = await self.wire.submit(key, body)
        if accepted is not None and self.random.random() < 0.05:
            # A client that is not sure asks again, and must get the same answer.
            await self.wire.submit(key, body)
        if accepted is not None and chance >= 0.12 and body["type"] == "start_session":
            self._sessions.append(accepted[1])

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(self.random.uniform(0.2, 1.8) * seconds)


def _plain() -> dict[str, Any]:
    return {
        "type": "start_session",
        "parameters": {"prompt": "work"},
        "additional_demands": {"tags": [TAG]},
    }
