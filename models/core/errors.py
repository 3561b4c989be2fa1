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
    session_id: str


@dataclass(frozen=True)
class ParentIsDescendant(CoordinatorError):
    parent_session_id: str


@dataclass(frozen=True)
class ParentOfAnotherOwner(CoordinatorError):
    parent_session_id: str

    def __str__(self) -> str:
        return f"Parent session '{self.parent_session_id}' belongs to another owner"


@dataclass(frozen=True)
class TooDeep(CoordinatorError):
    depth: int
    limit: int

    def __str__(self) -> str:
        return f"Session would be nested {self.depth} levels deep; at most {self.limit} are allowed"


@dataclass(frozen=True)
class KeyReused(CoordinatorError):
    key: str


@dataclass(frozen=True)
class Unstorable(CoordinatorError):
    reason: str


@dataclass(frozen=True)
class StaleClaim(CoordinatorError):
    """The token or runner given is not the run's current holder; nothing was changed."""

    run_id: str
    status: str
    session_id: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class InvalidTransition(CoordinatorError):
    """The current holder asks for a move that the transition table does not allow; nothing was changed."""

    run_id: str
    status: str
    wanted: str
    session_id: str | None = field(default=None, compare=False)


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
class AgentNameTaken(CoordinatorError):
    """Another runner provides an agent of this name; nothing of the registration was stored."""

    agent_name: str
    runner_id: str


@dataclass(frozen=True)
class TooManyAgents(CoordinatorError):
    """The owner's runners would provide more agents than that; nothing of the registration was stored."""

    limit: int


@dataclass(frozen=True)
class TooManyDemands(CoordinatorError):
    limit: int


@dataclass(frozen=True)
class SchemaUnchecked(CoordinatorError):
    """The agent's parameters must satisfy this schema, and the submission does not say that they do.

    Check ``parameters`` and submit again with ``schema_hash``. Both are JSON text.
    """

    agent_name: str
    schema_hash: str
    schema: str
    parameters: str


@dataclass(frozen=True)
class PromptRequired(CoordinatorError):
    """No agent takes these parameters, JSON text, or one without a schema: they must be exactly a prompt."""

    parameters: str
    agent_name: str | None = None


@dataclass(frozen=True)
class AgentNotResumable(CoordinatorError):
    agent_name: str


@dataclass(frozen=True)
class StopSessionFirst(CoordinatorError):
    session_id: str


@dataclass(frozen=True)
class ResultNotFound(CoordinatorError):
    id: str


@dataclass(frozen=True)
class SessionNotFinished(CoordinatorError):
    session_id: str
    status: str = field(default="")


@dataclass(frozen=True)
class RunNotCompleted(CoordinatorError):
    run_id: str
    status: str


@dataclass(frozen=True)
class RunNotEnded(CoordinatorError):
    """The run may not be replayed yet."""

    run_id: str
    status: str


@dataclass(frozen=True)
class TokenUnknown(CoordinatorError):
    """No dry run of the caller has this token, or it has expired."""


@dataclass(frozen=True)
class TooManyBulks(CoordinatorError):
    limit: int


@dataclass(frozen=True)
class TooManyHolds(CoordinatorError):
    limit: int


@dataclass(frozen=True)
class ScheduleExists(CoordinatorError):
    """Another owner has a schedule of this id."""

    schedule_id: str


@dataclass(frozen=True)
class VersionConflict(CoordinatorError):
    """The schedule has another version than the request expects; nothing was changed."""

    schedule_id: str
    version: int


@dataclass(frozen=True)
class TooManySchedules(CoordinatorError):
    limit: int


@dataclass(frozen=True)
class WebhookExists(CoordinatorError):
    """Another owner has a webhook of this id."""

    webhook_id: str


@dataclass(frozen=True)
class WebhookDisabled(CoordinatorError):
    webhook_id: str


@dataclass(frozen=True)
class TooManyWebhooks(CoordinatorError):
    limit: int


@dataclass(frozen=True)
class TooManySecrets(CoordinatorError):
    """So many secrets of the webhook are valid already."""

    limit: int


@dataclass(frozen=True)
class BadCursor(CoordinatorError):
    cursor: str


@dataclass(frozen=True)
class EntryNotFound(CoordinatorError):
    """No such entry of a registry. ``noun``: Agent, Capability, Script, MCP server."""

    noun: str
    name: str


@dataclass(frozen=True)
class EntryExists(CoordinatorError):
    noun: str
    name: str


@dataclass(frozen=True)
class EntryReferenced(CoordinatorError):
    """The entry was kept, since these agents name it."""

    noun: str
    agents: tuple[str, ...]


@dataclass(frozen=True)
class BadEntry(CoordinatorError):
    """The entry would break a rule of its registry; nothing was changed."""

    reason: str


@dataclass(frozen=True)
class RegistryFull(CoordinatorError):
    """The registry would hold more entries, or more bytes, than it may; nothing was changed."""

    noun: str
    entries: int
    size: int
