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


class TargetGroup(Described):
    """Targets with the same labels."""

    targets: Annotated[list[str], Field(examples=[["10.0.0.7:8765"]])]
    labels: Annotated[dict[str, str], Field(examples=[{"job": "coordinator-web"}])]


Targets = list[TargetGroup]
