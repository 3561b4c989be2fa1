"""Time zones of the pinned package tzdata: every replica computes the same times, whatever its machine has."""

from datetime import UTC, tzinfo
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo

TZ_VERSION: Final = version("tzdata")


class UnknownZone(ValueError):
    """Name of no zone of the IANA database."""


@lru_cache(1)
def zone_names() -> frozenset[str]:
    return frozenset(files("tzdata").joinpath("zones").read_text().split())


@lru_cache(1024)
def zone(name: str) -> tzinfo:
    """Return the zone of a name such as ``Europe/Berlin``. Raises UnknownZone."""
    if name == "UTC":
        # cronsim takes no detours for this object alone.
        return UTC
    if name not in zone_names():
        raise UnknownZone(name)
    # Only names of the list come here, so that none leads to another file.
    place = files("tzdata").joinpath("zoneinfo")
    for part in name.split("/"):
        place = place.joinpath(part)
    with place.open("rb") as file:
        return ZoneInfo.from_file(file, key=name)
