"""What a call to the coordinator can end in besides its answer."""

from typing import Any


class CoordinatorError(Exception):
    """Any failed call; catch this one to catch them all."""


class Unreachable(CoordinatorError):
    """No address gave a coordinator's answer; whether the call took effect is unknown.

    `causes` says, per address, what happened there: also an answer of something in between, a proxy's 404 for instance.
    With `too_large` one of those was 413: the same request will not come through, a smaller one may. `retry_after` is
    the longest pause, in seconds, that one of them asked for.
    """

    def __init__(self, causes: dict[str, str], *, too_large: bool = False, retry_after: float | None = None) -> None:
        self.causes = causes
        self.too_large = too_large
        self.retry_after = retry_after
        super().__init__("; ".join(f"{url}: {cause}" for url, cause in causes.items()))


class Refused(CoordinatorError):
    """The coordinator answered with an error: `status` is HTTP's, `detail` the answer's, `retry_after` seconds."""

    def __init__(self, status: int, detail: Any, retry_after: float | None = None) -> None:
        self.status = status
        self.detail = detail
        self.retry_after = retry_after
        super().__init__(f"{status}: {describe(detail)}")

    @property
    def passing(self) -> bool:
        """Whether the same call may well be accepted later (too many requests, a dependency away, a proxy's error)."""
        return self.status == 429 or self.status >= 500


def describe(detail: Any) -> str:
    """One line for a person out of an answer's `detail`: text, an object with a message, or 422's list."""
    match detail:
        case {"message": str(message), "validation_errors": [*errors]}:
            return "; ".join([message, *(_describe_item(item) for item in errors)])
        case {"message": str(message)}:
            return message
        case {"error": str(error)}:
            return error
        case [*items]:
            return "; ".join(_describe_item(item) for item in items)
        case _:
            return str(detail)


def _describe_item(item: Any) -> str:
    match item:
        case {"loc": [*loc], "msg": msg}:
            return f"{'.'.join(str(part) for part in loc)}: {msg}"
        case {"path": path, "message": message}:
            return f"{path}: {message}"
        case _:
            return str(item)
