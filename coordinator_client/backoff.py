"""How long to wait before the next try."""

import asyncio
import random


class Backoff:
    """Growing pauses with jitter, so that a thousand runners do not come back in the same instant. Seconds."""

    def __init__(self, first: float = 0.2, most: float = 5.0) -> None:
        self._first = first
        self._most = most
        self._tries = 0

    def pause(self) -> float:
        """The next pause: doubled each time up to `most`, of which a random half to whole is taken."""
        whole: float = min(self._most, self._first * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return whole * random.uniform(0.5, 1.0)

    async def rest(self) -> None:
        """Sleep for the next pause."""
        await asyncio.sleep(self.pause())

    def reset(self) -> None:
        """It worked: begin with short pauses again."""
        self._tries = 0
