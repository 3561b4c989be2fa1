"""Pauses between retries."""

import asyncio
import random


class Backoff:
    """Growing random pauses in seconds, so that a thousand runners do not return in the same instant."""

    def __init__(self, first: float = 0.2, most: float = 5.0) -> None:
        self._first = first
        self._most = most
        self._tries = 0

    def pause(self) -> float:
        """Return the next pause: a random half to whole of `first`, doubled on each call up to `most`."""
        whole: float = min(self._most, self._first * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return whole * random.uniform(0.5, 1.0)

    async def rest(self) -> None:
        await asyncio.sleep(self.pause())

    def reset(self) -> None:
        """Begin with short pauses again, after a success."""
        self._tries = 0
