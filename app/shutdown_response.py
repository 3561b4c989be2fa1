from starlette.responses import Response
from starlette.types import Scope

from app.auth.outages import OutagePolicy, outage_policy_of
from app.auth.permissions import endpoint_of
from app.http.problems import JSON

_ENDING = b'{"detail":"This process is ending; nothing was acknowledged, try again"}'


def shutdown_response(scope: Scope) -> Response:
    """Return the answer to a request cancelled by shutdown: 204 for a poll, 503 otherwise.

    uvicorn cancels what is still held after the grace period of a drain (Postgres did not answer for all of it) and
    would answer 500. A poll finds nothing, as in every outage; any other request may be repeated at once at another
    replica.
    """
    if outage_policy_of(endpoint_of(scope)) is OutagePolicy.POLL:
        return Response(status_code=204)
    return Response(_ENDING, 503, {"Retry-After": "1"}, JSON)
