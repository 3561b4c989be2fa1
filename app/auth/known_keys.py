"""Cache API keys, so that Postgres is asked once for each, and notice revocations.

Every process reads one number every ~2 s, with or without Redis; when it changed, all known keys are read again.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import inf
from typing import Final

from cachetools import FIFOCache
from sqlalchemy.exc import DBAPIError

from app.auth.watchers import Watchers
from app.writes.attempts import Attempts, Unavailable
from app.writes.group_commit import GroupCommit
from models.auth.keys import LAST_USED_SECONDS, Key, find_keys, key_revision, touch_keys
from models.core.errors import CoordinatorError
from runtime.loops import jittered, run_forever

LOOK_SECONDS: Final = 2.5
# No request can be answered before it is known whether any key was created.
FIRST_LOOK_SECONDS: Final = 0.1
MOST_KEYS: Final = 10_000


@dataclass(frozen=True, slots=True)
class KnownKey:
    """Key and until when it is valid, in the event loop's time; a past moment for a revoked or expired one."""

    key: Key
    until: float


class KnownKeys:
    """Bounded cache of keys and of ids without a key. ``any_key_ever_created`` is None until Postgres was read."""

    def __init__(self, watch: Attempts, reads: Attempts, writes: Attempts) -> None:
        self._watch = watch
        self._writes = writes
        # Requests with new keys share one statement.
        self._find: GroupCommit[str, Key] = GroupCommit(reads, find_keys)
        self._known: FIFOCache[str, KnownKey] = FIFOCache(MOST_KEYS)
        # Cached apart, so that made-up ids evict no known keys.
        self._unknown: FIFOCache[str, None] = FIFOCache(MOST_KEYS)
        self._revision: int | None = None
        self._is_stale = False
        self._used: set[str] = set()
        self._flushed_at = -inf
        self._watchers = Watchers()

    @property
    def any_key_ever_created(self) -> bool | None:
        return None if self._revision is None else self._revision > 0

    def recall(self, key_id: str) -> KnownKey | None:
        """Return the key if it is cached; None does not mean that it does not exist (``get``)."""
        return self._known.get(key_id)

    async def get(self, key_id: str) -> KnownKey | None:
        """Return the key, None when no key has that id. Raises Unavailable while Postgres is away."""
        if key_id in self._known or key_id in self._unknown:
            return self._known.get(key_id)
        before = self._revision
        key = await self._find.one(key_id)
        found = None if isinstance(key, CoordinatorError) else _known(key)
        # After a change of the revision meanwhile, the row may have been read before that change.
        if before == self._revision:
            self._remember(key_id, found)
        return found

    def used(self, key_id: str) -> None:
        """Mark the key as used; written to Postgres at most once a minute."""
        self._used.add(key_id)

    def watching(self, key_id: str, end: Callable[[], None]) -> AbstractContextManager[None]:
        return self._watchers.watching(key_id, end)

    async def watch_forever(self) -> None:
        """Notice changes of keys within ~2.5 s, and record at most once a minute which ones are used."""
        await run_forever(
            self._look_and_flush,
            failure="watching API keys failed",
            every=lambda: jittered(FIRST_LOOK_SECONDS if self._revision is None else LOOK_SECONDS),
            expected=(DBAPIError,),
            silent=(Unavailable,),
        )

    async def _look_and_flush(self) -> None:
        await self._look()
        await self._flush()

    async def _look(self) -> None:
        revision = await self._watch.autocommit(key_revision)
        if revision != self._revision:
            self._revision, self._is_stale = revision, True
        if self._is_stale:
            await self._read_again()
            self._is_stale = False

    async def _read_again(self) -> None:
        self._unknown.clear()
        key_ids = sorted({*self._known, *self._watchers})
        if not key_ids:
            return
        for key_id, key in zip(key_ids, await self._watch.autocommit(find_keys, key_ids), strict=True):
            found = None if isinstance(key, CoordinatorError) else _known(key)
            self._remember(key_id, found)
            if found is None or found.key.revoked_at is not None:
                self._watchers.end(key_id)

    async def _flush(self) -> None:
        now = asyncio.get_running_loop().time()
        if not self._used or now - self._flushed_at < LAST_USED_SECONDS:
            return
        used, self._used, self._flushed_at = self._used, set(), now
        await self._writes.write(touch_keys, sorted(used))

    def _remember(self, key_id: str, found: KnownKey | None) -> None:
        if found is None:
            self._known.pop(key_id, None)
            self._unknown[key_id] = None
        else:
            self._known[key_id] = found


def _known(key: Key) -> KnownKey:
    now = asyncio.get_running_loop().time()
    return KnownKey(key, inf if key.lives_for is None else now + key.lives_for)
