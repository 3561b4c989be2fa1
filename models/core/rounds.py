from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def in_rounds(keys: Iterable[Hashable]) -> list[list[int]]:
    """Return ordinals in rounds: round k holds the k-th item of each key, so that no key comes twice in a round."""
    counts: dict[Hashable, int] = {}
    rounds: list[list[int]] = []
    for ordinal, key in enumerate(keys):
        place = counts.get(key, 0)
        counts[key] = place + 1
        if place == len(rounds):
            rounds.append([])
        rounds[place].append(ordinal)
    return rounds


def in_rounds_of_many(
    items: Sequence[T],
    touches: Callable[[T], Sequence[Hashable]],
    reads: Callable[[T], Sequence[Hashable]],
) -> list[list[int]]:
    """Return ordinals in rounds, for items that touch several keys and read others.

    An item comes in a later round than every earlier item that touched one of its keys, or that read what it touches.
    """
    owned, read_only = [touches(item) for item in items], [reads(item) for item in items]
    if items and not any(read_only) and len({key for own in owned for key in own}) == sum(map(len, owned)):
        return [list(range(len(items)))]
    touched: dict[Hashable, int] = {}
    read: dict[Hashable, int] = {}
    rounds: list[list[int]] = []
    for ordinal, (own, others) in enumerate(zip(owned, read_only, strict=True)):
        place = 1 + max(
            [touched.get(key, -1) for key in (*own, *others)] + [read.get(key, -1) for key in own],
            default=-1,
        )
        touched.update(dict.fromkeys(own, place))
        read.update({key: max(place, read.get(key, -1)) for key in others})
        if place == len(rounds):
            rounds.append([])
        rounds[place].append(ordinal)
    return rounds
