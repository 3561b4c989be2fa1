from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

MAX_TEXT = 1024
LONGEST_SECONDS = 604_800

T = TypeVar("T")

# Field that may be absent, but is never null. Give it the default None.
MayLack: TypeAlias = T | SkipJsonSchema[None]


def _without_defaults(schema: dict[str, Any]) -> None:
    for described in schema.get("properties", {}).values():
        described.pop("default", None)


class Described(BaseModel):
    """Base of answers, and of bodies that are read leniently: the models describe them, and tests compare the
    serialisers and readers with them.
    """

    model_config = ConfigDict(json_schema_extra=_without_defaults)


class Validated(BaseModel):
    """Base of bodies that are validated: unknown fields are ignored; types are not coerced (``"5"`` is no number)."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, hide_input_in_errors=True)


Text = Annotated[str, Field(max_length=MAX_TEXT)]
Tag = Annotated[str, Field(min_length=1, max_length=128)]
Tags = Annotated[tuple[Tag, ...], Field(max_length=64)]

RunId = Annotated[str, Field(examples=["run_0197f7a0c3d17c1e8f2a4b6c8d0e1f2a"])]
SessionId = Annotated[str, Field(examples=["ses_0197f7a0c3d17c1e8f2a4b6c8d0e1f2b"])]
RunnerId = Annotated[str, Field(examples=["lnch_0a1b2c3d4e5f"])]
ClaimToken = Annotated[str, Field(examples=["0197f7a0c3d17c1e8f2a4b6c8d0e1f2c"])]
# ISO 8601, in UTC, with offset.
Timestamp = Annotated[
    str, Field(examples=["2026-01-01T12:00:00.000000+00:00"], json_schema_extra={"format": "date-time"})
]
Cursor = Annotated[str, Field(examples=["v1.c0ffee.1024"])]
NextCursor = Annotated[MayLack[Cursor], Field(description="Cursor of the next page; absent on the last one")]
FeedCursor = Annotated[
    MayLack[Cursor],
    Field(
        description="Position of this snapshot in the feed; a feed from it on misses no later change. Always in the "
        "header `Feed-Cursor`; here with `cursor_in_body=1` and with any parameter but `status` of runs"
    ),
]
Done = Annotated[bool, Field(examples=[True])]
