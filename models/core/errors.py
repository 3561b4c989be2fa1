"""Errors of one item of a verb: data only; ``app/http/problems.py`` says which HTTP answer each becomes."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CoordinatorError:
    """Base of everything a verb gives back instead of a result: a value, never raised."""


@dataclass(frozen=True)
class NotFound(CoordinatorError):
    """There is no such thing, or it belongs to another owner. ``noun``: run, session, runner, parent session."""

    noun: str
    id: str


@dataclass(frozen=True)
class SessionExists(CoordinatorError):
    """A start names a session that is there already."""

    session_id: str


@dataclass(frozen=True)
class ParentIsDescendant(CoordinatorError):
    """A session's parent would be itself or one of its descendants."""

    parent_session_id: str


@dataclass(frozen=True)
class ParentOfAnotherOwner(CoordinatorError):
    """A resumed session and the parent it is given belong to different owners."""

    parent_session_id: str


@dataclass(frozen=True)
class TooDeep(CoordinatorError):
    """A child session would be nested deeper than allowed."""

    depth: int
    limit: int


@dataclass(frozen=True)
class KeyReused(CoordinatorError):
    """An idempotency key came back with another body."""

    key: str


@dataclass(frozen=True)
class Unstorable(CoordinatorError):
    """A value that Postgres refuses in this item alone; ``reason`` says which."""

    reason: str


@dataclass(frozen=True)
class StaleClaim(CoordinatorError):
    """The token or runner given is not the run's current owner; nothing was changed."""

    run_id: str
    status: str


@dataclass(frozen=True)
class InvalidTransition(CoordinatorError):
    """The current owner asks for a move that the transition table does not allow; nothing was changed."""

    run_id: str
    status: str
    wanted: str


@dataclass(frozen=True)
class RunnerNotRegistered(CoordinatorError):
    """The runner is unknown, has left, was told to leave, or was silent for too long."""

    runner_id: str


@dataclass(frozen=True)
class DuplicateRunner(CoordinatorError):
    """A live process of the same identity is online, or the identity is registered by somebody else."""

    runner_id: str
    hostname: str
    project_dir: str
    executor_profile: str


@dataclass(frozen=True)
class TooManyDemands(CoordinatorError):
    """The caller's runs use as many distinct sets of demands as it may have."""

    limit: int


@dataclass(frozen=True)
class StopSessionFirst(CoordinatorError):
    """A session with something alive in it cannot be deleted."""

    session_id: str


@dataclass(frozen=True)
class ResultNotFound(CoordinatorError):
    """The session or run has ended, but no result of it is stored."""

    id: str


@dataclass(frozen=True)
class SessionNotFinished(CoordinatorError):
    """The session has no result yet because it is still at work."""

    session_id: str
    status: str = field(default="")


@dataclass(frozen=True)
class RunNotCompleted(CoordinatorError):
    """The run has no result: it is still at work, or ended otherwise."""

    run_id: str
    status: str


@dataclass(frozen=True)
class BadCursor(CoordinatorError):
    """A page cursor that this database did not give out."""

    cursor: str
