from functools import partial
from typing import Any


class CallFailed(Exception):
    """Base class of all failed calls.

    Attributes:
        retry_after: Longest pause, in seconds, that a response asked for; None when none did.
        is_transient: True if the same call may succeed later.
        request_id: `X-Request-Id` of the call, which log lines of the coordinator name; None if no request arrived, or
            for one item of a bulk response.
    """

    retry_after: float | None
    is_transient: bool
    request_id: str | None


class Unreachable(CallFailed):
    """Raised when no address gave a coordinator's response; the call may have taken effect all the same.

    Attributes:
        causes: What happened at each address; also a response of something in between, such as a proxy's 404.
        too_large: True if one response was 413: the same request will not come through, a smaller one may.
    """

    def __init__(
        self,
        causes: dict[str, str],
        *,
        too_large: bool = False,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        self.causes = causes
        self.request_id = request_id
        self.too_large = too_large
        self.retry_after = retry_after
        self.is_transient = not too_large
        super().__init__("; ".join(f"{url}: {cause}" for url, cause in causes.items()) + _named(request_id))

    def __reduce__(self) -> tuple[Any, ...]:
        again = partial(type(self), too_large=self.too_large, retry_after=self.retry_after, request_id=self.request_id)
        return again, (self.causes,)


class Refused(CallFailed):
    """Raised when the coordinator answers with an error; 429 and every 5xx are transient.

    Attributes:
        status: HTTP status.
        detail: `detail` of the response: a text, an object with a `message`, or the list of a 422.
    """

    def __init__(
        self, status: int, detail: Any, retry_after: float | None = None, request_id: str | None = None
    ) -> None:
        self.status = status
        self.request_id = request_id
        self.detail = detail
        self.retry_after = retry_after
        self.is_transient = status == 429 or status >= 500
        super().__init__(f"{status}: {describe(detail)}{_named(request_id)}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.detail, self.retry_after, self.request_id)


def _named(request_id: str | None) -> str:
    return "" if request_id is None else f" (request {request_id})"


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
