from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from urllib.parse import quote
from uuid import uuid4

from coordinator_client.bulk_types import Bulk, BulkPage, BulkPreview
from coordinator_client.calls import Calls
from coordinator_client.types import Submitted


class BulkCalls(Calls):
    """Calls that submit runs again, and that act on many runs at once."""

    async def replay(
        self, run_id: str, changes: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
    ) -> Submitted:
        """Submit an ended run again, in a new session, and return the new run.

        Args:
            run_id: The run.
            changes: Fields of the submission to replace, each as a whole; None removes one.
            idempotency_key: As for `submit`; default: a new one for each call.

        Raises:
            Refused: 404 for an unknown run; 409 for one that has not ended; 422 for an invalid change.
        """
        path = f"/runs/{quote(run_id, safe='')}/replay"
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
        body = {"changes": {name: _plain(value) for name, value in (changes or {}).items()}}
        return cast("Submitted", await self._call("POST", path, body=body, headers=headers, expects=("run_id",)))

    async def preview_bulk(
        self,
        action: str,
        *,
        filters: Mapping[str, Any] | None = None,
        run_ids: Sequence[str] | None = None,
        limit: int | None = None,
        changes: Mapping[str, Any] | None = None,
        note: str | None = None,
    ) -> BulkPreview:
        """Return how many runs an action would change, and the token for `start_bulk`.

        Args:
            action: `stop`, `delete` (of the runs' sessions), `replay`, `hold` or `release`.
            filters: Query parameters of `GET /runs`; a list for one that may be repeated.
            run_ids: Up to 1,000 runs in place of filters.
            limit: Most runs, up to 50,000.
            changes: As for `replay`.
            note: Text that `why` shows of runs that `hold` holds.

        Raises:
            Refused: 422 for filters that are unknown or contradict each other, and for an invalid change.
        """
        body: dict[str, Any] = {"action": action, "dry_run": True}
        if filters is not None:
            body["filter"] = {name: _plain(value) for name, value in filters.items()}
        if run_ids is not None:
            body["run_ids"] = list(run_ids)
        if limit is not None:
            body["limit"] = limit
        if changes is not None:
            body["changes"] = {name: _plain(value) for name, value in changes.items()}
        if note is not None:
            body["note"] = note
        return cast("BulkPreview", await self._call("POST", "/bulk", body=body, expects=("token",)))

    async def start_bulk(self, token: str) -> str:
        """Act on the runs that a dry run matched; return the id of the bulk. Repeating it starts nothing more.

        Raises:
            Refused: 404 for a token that is unknown or older than 15 minutes.
        """
        answer = await self._call("POST", "/bulk", body={"token": token}, expects=("bulk_id",))
        return cast("str", answer["bulk_id"])

    async def bulk(self, bulk_id: str) -> Bulk:
        """Return how far a bulk has come. Raises `Refused` 404 for an unknown one."""
        return cast("Bulk", await self._call("GET", f"/bulk/{quote(bulk_id, safe='')}", expects=("state",)))

    async def bulks(self, *, limit: int | None = None, cursor: str | None = None) -> BulkPage:
        """Return one page of bulks, newest first; for admins those of all callers."""
        query = {"limit": limit, "cursor": cursor}
        return cast("BulkPage", await self._call("GET", "/bulk", query=query, expects=("bulks",)))

    async def stop_bulk(self, bulk_id: str) -> Bulk:
        """Stop a bulk after the runs that it is acting on now. Raises `Refused` 404 for an unknown one."""
        path = f"/bulk/{quote(bulk_id, safe='')}/stop"
        return cast("Bulk", await self._call("POST", path, expects=("state",)))


def _plain(value: Any) -> Any:
    return value.astimezone().isoformat() if isinstance(value, datetime) else value
