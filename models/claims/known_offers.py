"""Offers of the runners that polled here, by which a poll of the plain case knows what its runner may take."""

import threading
from collections import OrderedDict
from collections.abc import Mapping

from models.claims.matching import Offer
from models.claims.per_engine import PerEngine

MOST_KNOWN = 20_000


class KnownOffers:
    """Cache of the offers that this process read last, by runner: compare its registration with the stored one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offers: OrderedDict[str, Offer] = OrderedDict()

    def note(self, offers: Mapping[str, Offer]) -> None:
        with self._lock:
            for runner_id, offer in offers.items():
                self._offers[runner_id] = offer
                self._offers.move_to_end(runner_id)
            while len(self._offers) > MOST_KNOWN:
                self._offers.popitem(last=False)

    def get(self, runner_id: str) -> Offer | None:
        with self._lock:
            return self._offers.get(runner_id)


known_offers = PerEngine(KnownOffers)
