from typing import Annotated, Literal

from pydantic import Field

from app.schemas.base import Described, NextCursor, Text, Timestamp, Validated
from models.core.callers import Role

LONGEST_LIFE = 10 * 366 * 86_400

KeyId = Annotated[str, Field(examples=["crd_0a1b2c3d4e5f"])]


class CreateKey(Validated):
    """API key to create."""

    role: Annotated[Literal["admin", "user", "runner"], Field(description="Calls that it may make")]
    owner: Annotated[Text | None, Field(description="Owner it acts for; required unless it is an admin's")] = None
    name: Annotated[Text | None, Field(description="Description of its use")] = None
    expires_in_seconds: Annotated[
        int | None, Field(ge=1, le=LONGEST_LIFE, description="Its lifetime; without: unlimited")
    ] = None


class Key(Described):
    """API key, without its secret."""

    key_id: KeyId
    role: Annotated[Role, Field(examples=["user"])]
    owner: Annotated[str | None, Field(examples=["ann"])]
    name: Annotated[str | None, Field(examples=[None])]
    created_at: Timestamp
    expires_at: Annotated[Timestamp | None, Field(examples=[None])]
    revoked_at: Annotated[Timestamp | None, Field(examples=[None])]
    last_used_at: Annotated[Timestamp | None, Field(description="Written once a minute at most", examples=[None])]
    state: Literal["good", "expired", "revoked"]


class KeyCreated(Key):
    """API key with its secret, which is shown this once."""

    key: Annotated[str, Field(description="The credential", examples=["crd_0a1b2c3d4e5f_c0ffee"])]


class KeyList(Described):
    """All API keys, oldest first."""

    keys: list[Key]


class AuditEntry(Described):
    """Act of an administrator."""

    type: Annotated[str, Field(examples=["audit"])]
    act: Annotated[str, Field(examples=["key_created"])]
    by: Annotated[str, Field(examples=["key:crd_0a1b2c3d4e5f"])]
    target: Annotated[str, Field(examples=["crd_0a1b2c3d4e5f"])]
    owner: Annotated[str | None, Field(description="Owner of the target", examples=["ann"])]
    at: Timestamp


class AuditPage(Described):
    """Acts of administrators, newest first."""

    entries: list[AuditEntry]
    next_cursor: NextCursor = None


class Sign(Described):
    """Last sign of life of a process or duty."""

    name: Annotated[str, Field(examples=["expire"])]
    at: Timestamp
    age_seconds: Annotated[float, Field(examples=[0.4])]


class Gap(Described):
    """Outage in which silence of runners was or may have been our own doing."""

    kind: Annotated[str, Field(examples=["web"])]
    started_at: Timestamp
    ended_at: Timestamp


class FeedState(Described):
    """Positions of the feed."""

    epoch: Annotated[str, Field(examples=["c0ffee"])]
    head: Annotated[int, Field(description="Newest position", examples=[1024])]
    floor: Annotated[int, Field(description="Up to it retention has dropped events", examples=[0])]
    counted: Annotated[int, Field(description="Up to it the history is counted", examples=[1024])]


class Versions(Described):
    """Versions of the process that answers, and of the schema."""

    coordinator: Annotated[str, Field(examples=["0.1.0"])]
    schema_found: Annotated[str | None, Field(examples=["0026"])]
    schema_needed: Annotated[str, Field(examples=["0026"])]


class SettingShown(Described):
    """Setting of the process that answers; passwords are masked."""

    name: Annotated[str, Field(examples=["COORDINATOR_LIST_LIMIT"])]
    value: Annotated[str, Field(examples=["10000"])]
    unit: Annotated[str, Field(examples=["rows"])]
    source: Annotated[str, Field(examples=["default"])]
    description: str


class System(Described):
    """State of the coordinator itself."""

    instance: Annotated[str, Field(description="Web process that answers", examples=["web_0197f7a0"])]
    versions: Versions
    instances: Annotated[list[Sign], Field(description="Web processes, the last seen first")]
    duties: list[Sign]
    gaps: Annotated[list[Gap], Field(description="The newest first")]
    feed: FeedState
    settings: list[SettingShown]
