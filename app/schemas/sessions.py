from typing import Annotated, Literal

from pydantic import AwareDatetime, BeforeValidator, Field

from app.schemas.base import Described, Done, FeedCursor, NextCursor, SessionId, Text, Timestamp, Validated
from app.schemas.timestamps import utc_by_default
from models.core.statuses import SessionStatus

ExecutorSessionId = Annotated[str, Field(description="Id that the executor gave the session", examples=["a1"])]
Profile = Annotated[str, Field(examples=["coding"])]
Hostname = Annotated[str, Field(examples=["build-7"])]


class BindSession(Validated):
    """Place where a session lives from now on; its resumes go there."""

    executor_session_id: Text
    hostname: Text
    executor_profile: Text
    project_dir: Text | None = None


class PatchSession(Validated):
    """Changes of a session; null leaves a field unchanged."""

    project_dir: Text | None = None
    agent_name: Text | None = None
    last_resumed_at: Annotated[AwareDatetime | None, BeforeValidator(utc_by_default)] = None
    executor_session_id: Text | None = None
    executor_profile: Text | None = None
    hostname: Text | None = None


class Session(Described):
    """Session, as clients see it."""

    session_id: SessionId
    status: Annotated[SessionStatus, Field(examples=["finished"])]
    created_at: Timestamp
    project_dir: Annotated[str | None, Field(examples=[None])]
    agent_name: Annotated[str | None, Field(examples=[None])]
    last_resumed_at: Annotated[Timestamp | None, Field(examples=[None])]
    parent_session_id: Annotated[SessionId | None, Field(description="Session that started this one", examples=[None])]
    executor_session_id: ExecutorSessionId | None
    executor_profile: Profile | None
    hostname: Hostname | None
    owner: Annotated[str | None, Field(examples=[None])]
    depth: Annotated[int, Field(description="Number of ancestors", examples=[0])]


class SessionPage(Described):
    """Page of sessions, newest first."""

    sessions: list[Session]
    feed_cursor: FeedCursor = None
    next_cursor: NextCursor = None


class TreeNode(Described):
    """Session of a tree."""

    session_id: SessionId
    parent_session_id: Annotated[SessionId | None, Field(examples=[None])]
    status: Annotated[SessionStatus, Field(examples=["finished"])]
    agent_name: Annotated[str | None, Field(examples=[None])]
    depth: Annotated[int, Field(description="Number of ancestors", examples=[0])]
    created_at: Timestamp
    runs: Annotated[dict[str, int], Field(description="Numbers of its runs by status", examples=[{"completed": 1}])]
    children: Annotated[int, Field(description="Number of its children, in this answer or not", examples=[0])]


class SessionTree(Described):
    """Session and those under it, level by level."""

    root: SessionId
    nodes: list[TreeNode]
    truncated: Annotated[
        bool, Field(description="Whether there are more; ask for the tree of a node", examples=[False])
    ]


class SessionAnswer(Described):
    """Answer with a session."""

    session: Session


class SessionChanged(Described):
    """Answer to a change of a session: the session as it is now."""

    ok: Done
    session: Session


class SessionState(Described):
    """Status of a session; `not_existent` for an unknown one."""

    status: Annotated[SessionStatus | Literal["not_existent"], Field(examples=["finished"])]


class Affinity(Described):
    """Place where a session lives."""

    session_id: SessionId
    executor_session_id: ExecutorSessionId | None
    hostname: Hostname | None
    project_dir: Annotated[str | None, Field(examples=[None])]
    executor_profile: Profile | None


class AffinityAnswer(Described):
    """Answer with the place where a session lives; its fields are null until it is bound."""

    affinity: Affinity


class DeletedRows(Described):
    """Numbers of what a session was deleted with."""

    session: Annotated[bool, Field(examples=[True])]
    events_count: Annotated[int, Field(examples=[12])]
    runs_count: Annotated[int, Field(examples=[1])]


class SessionDeleted(Described):
    """Answer to the deletion of a session."""

    ok: Done
    session_id: SessionId
    deleted: DeletedRows
    runs_removed_from_cache: Annotated[
        int, Field(description="As `deleted.runs_count`; for clients of other coordinators", examples=[1])
    ]
