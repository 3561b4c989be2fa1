"""Watch the feed by all kinds of clients at once: from the beginning or the middle, filtered, cut off, on changing
instances.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from sqlalchemy import Engine, text

from testkit.feed_follower import Follower, all_numbered, head, ledger, seen_events
from testkit.removed_events import keep_removed, removed
from testkit.waiting import eventually
from tests.support.feed_writers import KEPT

USUAL = "kind <> 'run_updated'"


@dataclass
class Watcher:
    """A client and what it must see: all that passes ``where`` behind ``after`` (None: behind its snapshot)."""

    name: str
    follower: Follower
    where: str = USUAL
    after: int | None = 0

    def saw_everything(self, engine: Engine) -> None:
        """Check that it saw each event once, in order, byte for byte; of deleted sessions, that all it saw was true."""
        after = self.follower.inits[0].position if self.after is None else self.after
        seen = seen_events(self.follower.events)
        there, gone = ledger(engine, after, self.where), removed(engine, after, self.where)
        positions = [position for position, _, _ in seen]
        assert positions == sorted(set(positions)), f"{self.name}: twice, or out of order"
        missed = [row for row in there if row[0] not in set(positions)]
        assert not missed, f"{self.name} missed {len(missed)} of {len(there)}, first {missed[0]}"
        history = sorted([*there, *(row for row in gone if row[0] in set(positions))])
        assert seen == history, f"{self.name} saw something else"
        if self.after is None:
            self._check_snapshot(engine)
        assert not self.follower.resets, f"{self.name}: {self.follower.resets}"
        assert len(self.follower.inits) == (1 if self.after is None else 0), self.name

    def _check_snapshot(self, engine: Engine) -> None:
        """Check that the snapshot shows every session whose beginning the stream does not tell, unless
        deleted by now.
        """
        (snapshot,) = self.follower.inits
        before = f"kind = 'session_created' AND feed_pos <= {snapshot.position}"
        begun = {json.loads(frame)["session"]["session_id"] for _, _, frame in ledger(engine, where=before)}
        gone = {json.loads(frame)["session_id"] for _, _, frame in ledger(engine, where="kind = 'session_deleted'")}
        shown = {one["session_id"] for one in json.loads(snapshot.data)["sessions"]}
        assert begun - gone <= shown, f"{self.name}: the snapshot does not show what its position says"


class Watchers:
    """Clients of all kinds. Those from the middle begin with ``join_in``."""

    def __init__(self, urls: Sequence[str], engine: Engine, seed: int) -> None:
        self.all: list[Watcher] = []
        self._urls = urls
        self._engine = engine
        self._seed = seed
        self._epoch = self._one("SELECT epoch FROM feed_head")
        session_id = KEPT[0]
        self._watch("steady", after=0)
        self._watch("cut off", after=0, cuts=True)
        self._watch("from a snapshot", after=None, cuts=True)
        self._watch("one session", {"session_id": session_id}, f"session_id = '{session_id}' AND {USUAL}", cuts=True)
        kinds = {"types": "session_created,run_updated"}
        self._watch("some kinds", kinds, "kind IN ('session_created', 'run_updated')", cuts=True)

    def join_in(self) -> None:
        """Start clients at the current head, and one of the newest run."""
        self._watch("from the middle", after=head(self._engine), cuts=True)
        run_id = self._one("SELECT run_id FROM runs ORDER BY created_at DESC LIMIT 1")
        kinds = {"run_id": run_id, "types": "run_updated,session_updated,session_created,event"}
        self._watch("from a late snapshot", after=None)
        self._watch("one run", kinds, f"run_id = '{run_id}' AND kind <> 'run_failed'", cuts=True)

    def saw_everything(self, within: float = 60) -> None:
        """Wait until all is numbered and every client has reached the end, then compare."""
        eventually(lambda: all_numbered(self._engine), within, what="numbered events")
        last = head(self._engine)
        for watcher in self.all:
            watcher.follower.until_at(last, within)
        self.stop()
        for watcher in self.all:
            watcher.saw_everything(self._engine)
        there = [position for position, _, _ in [*ledger(self._engine, where="true"), *removed(self._engine)]]
        assert sorted(there) == list(range(1, last + 1)), "a position is missing, or was given twice"

    def stop(self) -> None:
        for watcher in self.all:
            watcher.follower.stop()

    def _watch(
        self,
        name: str,
        query: dict[str, Any] | None = None,
        where: str = USUAL,
        *,
        after: int | None = 0,
        cuts: bool = False,
    ) -> None:
        cursor = None if after is None else f"v1.{self._epoch}.{after}"
        chance = Random(f"{self._seed} {name}") if cuts else None
        # Spread the first connections over the addresses.
        turn = len(self.all) % len(self._urls)
        follower = Follower(self._urls, query, cursor=cursor, cuts=chance, turn=turn)
        self.all.append(Watcher(name, follower, where, after))

    def _one(self, statement: str) -> str:
        with self._engine.connect() as connection:
            return str(connection.execute(text(statement)).scalar_one())


@contextmanager
def watching(urls: Sequence[str], engine: Engine, seed: int = 1) -> Iterator[Watchers]:
    """Run clients for the length of a block."""
    keep_removed(engine)
    watchers = Watchers(urls, engine, seed)
    try:
        yield watchers
    finally:
        watchers.stop()


def acknowledged_events_are_in_history(contents: Sequence[str], engine: Engine) -> None:
    """Check that everything answered 201 is part of the history."""
    history = "".join(frame for _, _, frame in ledger(engine, where="kind = 'event'"))
    lost = [content for content in contents if content not in history]
    assert not lost, f"{len(lost)} of {len(contents)} were acknowledged and lost"
