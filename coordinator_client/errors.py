"""Errors of calls to the coordinator."""

from typing import Any


class CoordinatorError(Exception):
    """Base class of all failed calls."""


class Unreachable(CoordinatorError):
    """Raised when no address gave a coordinator's response; the call may have taken effect all the same.

    Attributes:
        causes: What happened at each address; also a response of something in between, such as a proxy's 404.
        too_large: True if one response was 413: the same request will not come through, a smaller one may.
        retry_after: Longest pause, in seconds, that a response asked for; None when none did.
    """

    def __init__(self, causes: dict[str, str], *, too_large: bool = False, retry_after: float | None = None) -> None:
        self.causes = causes
        self.too_large = too_large
        self.retry_after = retry_after
        super().__init__("; ".join(f"{url}: {cause}" for url, cause in causes.items()))


class Refused(CoordinatorError):
    """Raised when the coordinator answers with an error.

    Attributes:
        status: HTTP status.
        detail: `detail` of the response: a text, an object with a `message`, or the list of a 422.
        retry_after: Pause, in seconds, that the response asked for; None when it asked for none.
    """

    def __init__(self, status: int, detail: Any, retry_after: float | None = None) -> None:
        self.status = status
        self.detail = detail
        self.retry_after = retry_after
        super().__init__(f"{status}: {describe(detail)}")

    @property
    def passing(self) -> bool:
        """True if the same call may be accepted later: 429 and every 5xx."""
        return self.status == 429 or self.status >= 500


def describe(detail: Any) -> str:
    """Return `detail` of an error response as one line of text."""
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
