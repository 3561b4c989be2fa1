import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Any, TypeAlias

# Seconds between two progress events; one that comes sooner is kept back, and replaced by the next.
PROGRESS_SECONDS = 0.5

# Sends an event: its type, its fields and its time.
Tell: TypeAlias = Callable[[str, Mapping[str, Any], str], None]


class RunCancelled(Exception):
    """Raised by `TaskRun.raise_if_cancelled`; let it pass."""


class TaskRun:
    """Run that a function executes. Its methods may be called from any thread.

    Attributes:
        details: The run as the runner claimed it, without its claim token.
    """

    def __init__(self, details: Mapping[str, Any], tell: Tell) -> None:
        self.details = details
        self._tell = tell
        self._is_cancelled = threading.Event()
        self._lock = threading.Lock()
        self._shown_at = -PROGRESS_SECONDS
        self._kept_back: tuple[Mapping[str, Any], str] | None = None

    @property
    def run_id(self) -> str:
        return str(self.details["run_id"])

    @property
    def session_id(self) -> str:
        return str(self.details["session_id"])

    @property
    def attempt(self) -> int:
        """Number of this start; above 1 an earlier one may have had effects."""
        return int(self.details.get("attempt", 1))

    @property
    def traceparent(self) -> str | None:
        """W3C trace context of this attempt, for clients made here; None for a run without a trace."""
        found = self.details.get("traceparent")
        return found if isinstance(found, str) else None

    @property
    def cancelled(self) -> bool:
        """True once the function should end: the run was stopped or lost, or the runner leaves."""
        return self._is_cancelled.is_set()

    def raise_if_cancelled(self) -> None:
        """Raise RunCancelled if the function should end."""
        if self.cancelled:
            raise RunCancelled

    def wait_until_cancelled(self, seconds: float) -> bool:
        """Wait, at most for so many seconds; return True if the function should end. For functions in threads."""
        return self._is_cancelled.wait(seconds)

    def log(self, text: str, *, error: bool = False) -> None:
        """Append a message to the run's log; with `error` as those of stderr.

        Blocks a function in a thread or process while the coordinator accepts no events and many are waiting.
        """
        self._message("system" if error else "assistant", str(text))

    def progress(self, fraction: float, text: str = "") -> None:
        """Append a `progress` event: a fraction from 0 to 1 and a text. At most two a second are sent, and the last."""
        share = min(1.0, max(0.0, float(fraction)))
        shown = f"{share:.0%} {text}".strip()
        fields = {"content": [{"type": "text", "text": shown, "progress": share}]}
        with self._lock:
            elapsed = monotonic()
            if elapsed < self._shown_at + PROGRESS_SECONDS:
                self._kept_back = fields, now()
                return
            self._shown_at = elapsed
            self._kept_back = None
        self._tell("progress", fields, now())

    def cancel(self) -> None:
        """Have `cancelled` be true; called by the runner."""
        self._is_cancelled.set()

    def finish(self) -> None:
        """Send progress that was kept back; called by the runner."""
        with self._lock:
            kept_back, self._kept_back = self._kept_back, None
        if kept_back is not None:
            self._tell("progress", *kept_back)

    def _message(self, role: str, text: str) -> None:
        self._tell("message", {"role": role, "content": [{"type": "text", "text": text}]}, now())


def now() -> str:
    return datetime.now(UTC).isoformat()
