import time
from typing import Any, Final

import structlog

MOST_A_MINUTE: Final = 120


class LimitedLines:
    """INFO lines of one event, which clients cause: at most 120 a minute in a process. The first line after a pause
    says how many were left out.
    """

    def __init__(self, logger: structlog.stdlib.BoundLogger, event: str, *, most: int = MOST_A_MINUTE) -> None:
        self._logger = logger
        self._event = event
        self._most = most
        self._minute = 0
        self._written = 0
        self._left_out = 0

    def write(self, **fields: Any) -> None:
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._written = minute, 0
        if self._written >= self._most:
            self._left_out += 1
            return
        self._written += 1
        if self._left_out:
            fields["left_out"], self._left_out = self._left_out, 0
        self._logger.info(self._event, **fields)
