"""Rounds: how items of one batch that concern the same row are applied one after another, in item order."""

from collections.abc import Hashable, Iterable


def in_rounds(keys: Iterable[Hashable]) -> list[list[int]]:
    """Return ordinals in rounds: round k holds the k-th item of each key, so that no key comes twice in a round."""
    seen: dict[Hashable, int] = {}
    rounds: list[list[int]] = []
    for ordinal, key in enumerate(keys):
        place = seen.get(key, 0)
        seen[key] = place + 1
        if place == len(rounds):
            rounds.append([])
        rounds[place].append(ordinal)
    return rounds
