import asyncio
import random


class Backoff:
    """Growing random pauses in seconds, so that a thousand runners do not return in the same instant."""

    def __init__(self, first: float = 0.2, longest: float = 5.0) -> None:
        self._first = first
        self._longest = longest
        self._tries = 0

    def pause(self, at_least: float | None = None) -> float:
        """Return the next pause: a random half to whole of `first`, doubled on each call up to `longest`; not shorter
        than the `retry_after` of an error, given as `at_least`.
        """
        whole: float = min(self._longest, self._first * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return max(whole * random.uniform(0.5, 1.0), at_least or 0.0)

    async def sleep(self, at_least: float | None = None) -> None:
        await asyncio.sleep(self.pause(at_least))

    def reset(self) -> None:
        self._tries = 0
