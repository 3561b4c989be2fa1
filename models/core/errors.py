"""Errors of one item of a verb: data only; ``app/http/problems.py`` maps each to its HTTP answer."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CoordinatorError:
    """Base of all values that a verb returns instead of a result; never raised."""


@dataclass(frozen=True)
class NotFound(CoordinatorError):
    """No such object, or it belongs to another owner. ``noun``: run, session, runner, parent session."""

    noun: str
    id: str


@dataclass(frozen=True)
class SessionExists(CoordinatorError):
    """The session that a start names exists already."""

    session_id: str


@dataclass(frozen=True)
class ParentIsDescendant(CoordinatorError):
    """The session's parent would be itself or one of its descendants."""

    parent_session_id: str


@dataclass(frozen=True)
class ParentOfAnotherOwner(CoordinatorError):
    """The resumed session and its given parent belong to different owners."""

    parent_session_id: str


@dataclass(frozen=True)
class TooDeep(CoordinatorError):
    """The child session would be nested deeper than allowed."""

    depth: int
    limit: int


@dataclass(frozen=True)
class KeyReused(CoordinatorError):
    """The idempotency key was used with another body."""

    key: str


@dataclass(frozen=True)
class Unstorable(CoordinatorError):
    """Postgres refuses a value of this item; ``reason`` says which."""

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
    """A live process of the same identity is online, or the identity is registered by another owner."""

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
    """The session has a live process or a run in hand, and cannot be deleted."""

    session_id: str


@dataclass(frozen=True)
class ResultNotFound(CoordinatorError):
    """The session or run has ended, but no result of it is stored."""

    id: str


@dataclass(frozen=True)
class SessionNotFinished(CoordinatorError):
    """The session is still at work and has no result yet."""

    session_id: str
    status: str = field(default="")


@dataclass(frozen=True)
class RunNotCompleted(CoordinatorError):
    """The run is still at work or ended otherwise, and has no result."""

    run_id: str
    status: str


@dataclass(frozen=True)
class BadCursor(CoordinatorError):
    """The page cursor was not given out by this database."""

    cursor: str
