from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final, Literal

from runner.lines import Line, LineSplitter, Piece, in_pieces
from runner.results import ResultFile, checked, refuse_larger, result_of_line

Role = Literal["assistant", "system"]
# Sends an event: its type, its fields, its time, and its bytes roughly.
Tell = Callable[[str, Mapping[str, Any], str, int], Awaitable[None]]

# Seconds after which an unfinished line, or one that may be the result, is sent all the same.
SHOW_SECONDS: Final = 0.5
# Blank lines kept back behind a line that may be the result.
MOST_BLANK_LINES: Final = 100
ERROR_TAIL_LINES: Final = 20
ERROR_TAIL_LENGTH: Final = 8 * 1024


@dataclass(slots=True)
class _Candidate:
    line: Line
    timestamp: str
    since: float
    is_told: bool = False
    blanks: list[tuple[Line, str]] = field(default_factory=list)


class RunOutput:
    """Converter of one process's output to events, in the order of each of its two streams.

    The texts of messages, each followed by a line end unless it is `partial`, are the output: nothing is added, and
    only text that a carriage return overwrote at once is left out. Output beyond `most_bytes` is dropped, with a
    notice.
    """

    def __init__(self, tell: Tell, *, most_bytes: int | None = None) -> None:
        self._tell = tell
        self._most_bytes = most_bytes
        self._told_bytes = 0
        self._is_full = False
        self._splitters: dict[Role, LineSplitter] = {"assistant": LineSplitter(), "system": LineSplitter()}
        self._waiting_since: dict[Role, float] = {}
        self._candidate: _Candidate | None = None
        self._error_tail: deque[str] = deque(maxlen=ERROR_TAIL_LINES)

    @property
    def error_tail(self) -> str:
        return "\n".join(self._error_tail)[-ERROR_TAIL_LENGTH:]

    async def take(self, role: Role, data: bytes) -> None:
        splitter = self._splitters[role]
        found = splitter.feed(data)
        if found:
            # The waiting text begins another line, or another piece.
            self._waiting_since.pop(role, None)
        await self._take_all(role, found)
        if not splitter.is_waiting:
            self._waiting_since.pop(role, None)
        elif self._waiting_since.setdefault(role, monotonic()) + SHOW_SECONDS <= monotonic():
            await self.show(role)

    async def finish(self, role: Role) -> None:
        self._waiting_since.pop(role, None)
        await self._take_all(role, self._splitters[role].finish())

    def seconds_left(self, role: Role) -> float:
        """Return how long the reader may wait before it calls `show`; SHOW_SECONDS when nothing is kept back."""
        since = [self._waiting_since[role]] if role in self._waiting_since else []
        if role == "assistant" and self._candidate is not None and not self._candidate.is_told:
            since.append(self._candidate.since)
        return max(0.0, min(since) + SHOW_SECONDS - monotonic()) if since else SHOW_SECONDS

    async def show(self, role: Role) -> None:
        """Send text that was kept back long enough; a line that may be the result stays a candidate."""
        now = monotonic()
        candidate = self._candidate
        if role == "assistant" and candidate is not None and candidate.since + SHOW_SECONDS <= now:
            await self._tell_candidate()
        if self._waiting_since.get(role, now) + SHOW_SECONDS <= now:
            self._waiting_since.pop(role, None)
            await self._take_all(role, self._splitters[role].flush())

    async def conclude(self, result_file: ResultFile) -> None:
        """Send the result of a process that ended well: its file, else its last line. Raises ResultRefused."""
        result, timestamp = result_file.read(), _now()
        candidate = self._candidate
        if result is None and candidate is not None:
            refuse_larger(candidate.line.size)
            result, timestamp = result_of_line(candidate.line.whole or ""), candidate.timestamp
            if result is not None:
                await self._tell_rest_of(candidate)
        await self._tell_candidate()
        if result is not None:
            size = len(candidate.line.rest) if candidate else 0
            await self._tell("result", checked(result), timestamp, size)

    async def give_up(self) -> None:
        await self._tell_candidate()

    async def notice(self, text: str) -> None:
        content = [{"type": "text", "text": f"[runner] {text}", "notice": True}]
        await self._tell("message", {"role": "system", "content": content}, _now(), len(text))

    async def _take_all(self, role: Role, found: Sequence[Line | Piece]) -> None:
        for part in found:
            if role == "system":
                self._remember_error(part)
                await self._tell_line(role, part, _now())
            else:
                await self._take_output(part)

    def _remember_error(self, part: Line | Piece) -> None:
        if isinstance(part, Line):
            self._error_tail.append((part.rest if part.whole is None else part.whole)[-ERROR_TAIL_LENGTH:])

    async def _take_output(self, part: Line | Piece) -> None:
        if self._waits_with_candidate(part):
            return
        await self._tell_candidate()
        if isinstance(part, Line) and not part.is_blank:
            self._candidate = _Candidate(part, _now(), monotonic()) if part.looks_like_object else None
            if self._candidate is not None:
                return
        await self._tell_line("assistant", part, _now())

    def _waits_with_candidate(self, part: Line | Piece) -> bool:
        candidate = self._candidate
        if candidate is None or candidate.is_told or not isinstance(part, Line) or not part.is_blank:
            return False
        if len(candidate.blanks) == MOST_BLANK_LINES:
            return False
        candidate.blanks.append((part, _now()))
        return True

    async def _tell_candidate(self) -> None:
        candidate = self._candidate
        if candidate is not None and not candidate.is_told:
            await self._tell_line("assistant", candidate.line, candidate.timestamp)
            await self._tell_blanks(candidate)

    async def _tell_rest_of(self, candidate: _Candidate) -> None:
        if not candidate.is_told and not candidate.line.has_pieces:
            await self._tell_blanks(candidate)

    async def _tell_blanks(self, candidate: _Candidate) -> None:
        candidate.is_told = True
        blanks, candidate.blanks = candidate.blanks, []
        for line, timestamp in blanks:
            await self._tell_line("assistant", line, timestamp)

    async def _tell_line(self, role: Role, part: Line | Piece, timestamp: str) -> None:
        if isinstance(part, Piece):
            await self._tell_text(role, part.text, timestamp, is_partial=True)
        elif part.rest or not (part.is_open and part.has_pieces):
            *begun, last = in_pieces(part.rest)
            for text in begun:
                await self._tell_text(role, text, timestamp, is_partial=True)
            await self._tell_text(role, last, timestamp, is_partial=part.is_open)

    async def _tell_text(self, role: Role, text: str, timestamp: str, *, is_partial: bool) -> None:
        if self._is_full:
            return
        if self._most_bytes is not None:
            self._told_bytes += len(text.encode()) + (not is_partial)
            if self._told_bytes > self._most_bytes:
                self._is_full = True
                await self.notice(
                    f"The output beyond {self._most_bytes} bytes is left out (--max-output of the runner)"
                )
                return
        block: dict[str, object] = {"type": "text", "text": text}
        if is_partial:
            block["partial"] = True
        await self._tell("message", {"role": role, "content": [block]}, timestamp, len(text))


def _now() -> str:
    return datetime.now(UTC).isoformat()
