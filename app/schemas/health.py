"""Define the answers of health endpoints (PROTOCOL, Health and other endpoints)."""

from typing import Annotated, Literal

from pydantic import Field

from app.schemas.base import Described, MayLack


class Health(Described):
    """Answer of a process that answers at all."""

    status: Literal["healthy", "alive"]


class Readiness(Described):
    """Readiness of a process."""

    status: Literal["ready", "degraded", "starting", "draining"]
    reason: Annotated[MayLack[str], Field(description="Reason of a status other than `ready`")] = None
