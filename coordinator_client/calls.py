from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any


class Calls(ABC):
    """Base of groups of calls, which the client sends in one way."""

    @abstractmethod
    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: Any = None,
        headers: dict[str, str] | None = None,
        seconds: float | None = None,
        expects: Sequence[str] = (),
    ) -> Any: ...
