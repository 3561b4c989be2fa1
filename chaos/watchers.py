import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from random import Random
from typing import Any

from sqlalchemy import text

from chaos.clients import KEPT
from chaos.cluster import ChaosCluster
from models.schema.sql import sql
from testkit.feed_follower import Connection, Follower, Message, sent_data
from testkit.recorded_events import RECORDED_EVENTS
from testkit.removed_events import keep_removed
from testkit.waiting import eventually

# Responses of a balancer without a healthy replica.
_NO_REPLICA = {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}

# Upkeep removes the events of deleted sessions: they are kept aside (feed_watchers.keep_removed).
_HISTORY = text("""
    SELECT feed_pos, kind, session_id, run_id, CAST(frame AS text) AS frame FROM events WHERE feed_pos IS NOT NULL
    UNION ALL
    SELECT feed_pos, kind, session_id, run_id, CAST(frame AS text) AS frame FROM removed_events
    ORDER BY feed_pos
""")
_REMOVED = text("SELECT feed_pos FROM removed_events")
_LAST = text("SELECT kind, session_id, max(feed_pos) AS position FROM events GROUP BY kind, session_id")
_EPOCH = text("SELECT epoch FROM feed_head")
_UNNUMBERED = sql("SELECT count(*) FROM $recorded WHERE feed_pos IS NULL", recorded=RECORDED_EVENTS)


def digest(event: str, data: str) -> int:
    """Return four bytes for a frame: a long history of many clients fits into memory."""
    return zlib.crc32(data.encode("utf-8", "surrogatepass"), zlib.crc32(event.encode()))


class HoppingClient(Follower):
    def __init__(self, urls: Sequence[str], query: dict[str, Any], *, balanced: bool, **how: Any) -> None:
        self.positions = array("q")
        self.digests = array("L")
        self.refused = 0
        self._balanced = balanced
        super().__init__(urls, query, **how)

    def _listen(self, connection: Connection) -> None:
        if self._balanced and connection.response.status in _NO_REPLICA:
            self.refused += 1
            connection.close()
            return
        super()._listen(connection)

    def _take(self, message: Message) -> None:
        if message.event in {"", "init", "reset"}:
            super()._take(message)
            return
        self.positions.append(message.position)
        self.digests.append(digest(message.event, message.data))
        self.cursor = message.id


@dataclass
class Watcher:
    name: str
    client: HoppingClient
    kinds: frozenset[str] = frozenset()
    session_id: str = ""

    def wants(self, kind: str, session_id: str) -> bool:
        if self.session_id and session_id != self.session_id:
            return False
        return kind in self.kinds if self.kinds else kind not in {"run_updated", "audit"}


class Watchers:
    def __init__(self, cluster: ChaosCluster, seed: int) -> None:
        self._engine = cluster.engine
        keep_removed(self._engine)
        self.all = list(_watchers(cluster, self._scalar(_EPOCH), seed))

    def until_at_the_end(self, within: float) -> None:
        eventually(lambda: self._scalar(_UNNUMBERED) == 0, within, every=0.1, what="numbered events")
        with self._engine.connect() as connection:
            newest = connection.execute(_LAST).all()
        for watcher in self.all:
            last = max((row.position for row in newest if watcher.wants(row.kind, row.session_id)), default=0)
            watcher.client.until_at(last, within)

    def stop(self) -> None:
        for watcher in self.all:
            watcher.client.stop()

    def differences(self) -> list[str]:
        found: list[str] = []
        places = [0] * len(self.all)
        with self._engine.connect().execution_options(yield_per=2000) as connection:
            removed = set(connection.execute(_REMOVED).scalars())
            expected = 1
            for row in connection.execute(_HISTORY):
                position, kind, session_id = row.feed_pos, row.kind, row.session_id
                if position != expected:
                    found.append(f"positions {expected} to {position - 1} are missing")
                expected = position + 1
                mark = -1
                for number, watcher in enumerate(self.all):
                    if not watcher.wants(kind, session_id):
                        continue
                    mark = digest(kind, sent_data(row)) if mark < 0 else mark
                    seen, place = watcher.client, places[number]
                    if place < len(seen.positions) and seen.positions[place] == position:
                        places[number] += 1
                        if seen.digests[place] != mark:
                            found.append(f"{watcher.name} saw something else at {position}")
                    elif position not in removed:
                        found.append(f"{watcher.name} did not see {position} ({kind} of {session_id}) in its place")
        for watcher, place in zip(self.all, places, strict=True):
            if place != len(watcher.client.positions):
                found.append(f"{watcher.name} saw {watcher.client.positions[place]} twice, or out of order")
            if watcher.client.resets:
                found.append(f"{watcher.name} was reset: {watcher.client.resets}")
        return found

    def _scalar(self, statement: Any) -> Any:
        with self._engine.connect() as connection:
            return connection.execute(statement).scalar_one()


def _watchers(cluster: ChaosCluster, epoch: str, seed: int) -> Iterator[Watcher]:
    start = f"v1.{epoch}.0"
    kinds = frozenset({"run_updated", "run_failed"})

    def client(name: str, query: dict[str, Any], turn: int, *, balanced: bool, cuts: bool) -> HoppingClient:
        urls = [cluster.balancer] if balanced else cluster.urls
        chance = Random(f"{seed} {name}") if cuts else None
        return HoppingClient(urls, query, balanced=balanced, cursor=start, cuts=chance, longest=60_000, turn=turn)

    for turn, (name, balanced, cuts) in enumerate(
        [("a steady client", False, False), ("a hopping client", False, True), ("a balanced client", True, False)]
    ):
        yield Watcher(name, client(name, {}, turn, balanced=balanced, cuts=cuts))
    query = {"types": ",".join(sorted(kinds))}
    yield Watcher("a client of runs", client("runs", query, 1, balanced=False, cuts=True), kinds)
    name = "a client of one session"
    yield Watcher(name, client(name, {"session_id": KEPT[0]}, 2, balanced=True, cuts=True), session_id=KEPT[0])


@contextmanager
def watching(cluster: ChaosCluster, seed: int) -> Iterator[Watchers]:
    watchers = Watchers(cluster, seed)
    try:
        yield watchers
    finally:
        watchers.stop()
