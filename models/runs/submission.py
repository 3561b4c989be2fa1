"""Submissions: the run that a client asks for, what is planned for it, and the answer. Decisions only."""

import functools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, TypeAlias

from sqlalchemy import Connection

from models.claims.matching import AUTONOMOUS, NO_DEMANDS, PROCEDURAL, Demands
from models.core.callers import Caller
from models.core.errors import (
    AgentNotResumable,
    CoordinatorError,
    NotFound,
    ParentIsDescendant,
    ParentOfAnotherOwner,
    PromptRequired,
    SchemaUnchecked,
    SessionExists,
    TooDeep,
)
from models.core.facts import SUBMITTED, note
from models.core.retries import RetryPolicy
from models.core.statuses import RunType
from models.registries.blueprints.placeholders import Values
from models.registries.blueprints.resolve import RegistryAgent, parsed, resolve_blueprint
from models.state.agents import OwnedAgent
from models.state.locked_rows import LockedSession
from models.state.sessions import Session
from models.state.visibility import Visible, can_view

# Labels that a schedule gives its runs, both of them.
SCHEDULE_LABEL: Final = "schedule"
FIRE_LABEL: Final = "fire_at"

# Agent of the registry, or else of a runner.
RunAgent: TypeAlias = RegistryAgent | OwnedAgent


@dataclass(frozen=True, slots=True)
class NewRun:
    """Submission of a run. ``parameters`` and ``scope`` are JSON text; times in seconds; ids made before the first try.

    ``session_id`` is the client's; ``new_session_id`` is used when a start has none. ``not_before`` and
    ``delay_seconds`` are two ways to say the same, the latter from now by the clock of Postgres. Without ``affinity`` a
    resume goes to any runner, wherever its session lives. A replay names the run that it repeats; without a parent it
    belongs to that run's owner, ``replayed_owner``. ``traceparent`` is the trace that the run continues.

    ``prompt_only``: the parameters are exactly a prompt, as a run without a runner's agent needs; ``satisfied_schema``:
    hash of the schema that they were found to satisfy. Without ``looks_up_agent`` the name means no agent, and with
    ``keeps_demands`` one of the registry for its blueprint alone. A ``callback`` may resume the session of any agent,
    and has no blueprint.
    """

    run_id: str
    session_id: str | None
    new_session_id: str
    caller: Caller
    type: RunType
    parameters: str
    agent_name: str | None = None
    project_dir: str | None = None
    parent_session_id: str | None = None
    scope: str | None = None
    execution_mode: str = "sync"
    additional_demands: Demands = NO_DEMANDS
    affinity: bool = True
    priority: int = 0
    not_before: datetime | None = None
    delay_seconds: float | None = None
    max_attempts: int = 1
    run_timeout_seconds: int | None = None
    no_match_timeout_seconds: int = 300
    labels: dict[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    body_hash: str | None = None
    replay_of: str | None = None
    replayed_owner: str | None = None
    traceparent: str | None = None
    prompt_only: bool = True
    satisfied_schema: str | None = None
    looks_up_agent: bool = True
    keeps_demands: bool = False
    callback: bool = False
    retry: RetryPolicy | None = None

    @property
    def start_owner(self) -> str | None:
        """Owner of a start without a parent."""
        return self.caller.owner if self.replay_of is None else self.replayed_owner

    @property
    def own_session(self) -> str:
        return self.session_id or self.new_session_id

    @property
    def key(self) -> tuple[str, str] | None:
        return None if self.idempotency_key is None else (self.caller.key_space, self.idempotency_key)

    @property
    def former_key(self) -> tuple[str, str] | None:
        space = self.caller.former_key_space
        return None if self.idempotency_key is None or space is None else (space, self.idempotency_key)


@dataclass(frozen=True, slots=True)
class Submitted:
    """Accepted run; ``replayed`` when its idempotency key had been answered before.

    ``demands`` are those of the run of an agent, which its submission alone does not tell.
    """

    run_id: str
    session_id: str
    status: str = "pending"
    replayed: bool = False
    demands: Demands | None = field(default=None, compare=False)


def note_submitted(conn: Connection, items: Sequence[NewRun], results: Iterable[object]) -> None:
    """Note how many runs of each type are new."""
    types = Counter(
        item.type
        for item, result in zip(items, results, strict=True)
        if isinstance(result, Submitted) and not result.replayed
    )
    for run_type, number in types.items():
        note(conn, SUBMITTED, run_type, value=number)


@dataclass(frozen=True, slots=True)
class Plan:
    item: NewRun
    owner: str | None
    depth: int
    agent_name: str | None
    project_dir: str | None
    scope: str | None
    demands: Demands
    session_seq: int = 1
    blueprint: str | None = None


@dataclass(frozen=True, slots=True)
class LockedState:
    """Locked rows on which submissions are decided, by id: ``created`` new sessions, ``locked`` others and parents.

    ``ancestors`` of parents, themselves included; ``heights``: levels of children below sessions that get a new parent.
    ``agents`` by the names that the submissions and their sessions have. ``environment``: variables for blueprints.
    """

    created: dict[str, Session]
    locked: dict[str, LockedSession]
    ancestors: dict[str, set[str]]
    heights: dict[str, int]
    visible: Visible
    max_depth: int
    agents: Mapping[str, RunAgent | None]
    environment: Mapping[str, str] = field(default_factory=dict)


def agent_name_of(item: NewRun, session: LockedSession | None) -> str | None:
    """Return the name of the run's agent: on a resume the session's own, if it has one."""
    if item.type is RunType.RESUME and session is not None and session.agent_name is not None:
        return session.agent_name
    return item.agent_name


def agent_of(item: NewRun, session: LockedSession | None, agents: Mapping[str, RunAgent | None]) -> RunAgent | None:
    name = agent_name_of(item, session) if item.looks_up_agent else None
    return None if name is None else agents.get(name)


def demands_of_run(item: NewRun, session: LockedSession | None, agent: RunAgent | None = None) -> Demands:
    if item.type is RunType.RESUME and item.affinity and session is not None:
        return resume_demands(session.hostname, session.executor_profile, item.additional_demands, agent)
    return _start_demands(item.additional_demands) if agent is None else _demands(agent, item.additional_demands)


@functools.lru_cache(1024)
def _start_demands(additional: Demands) -> Demands:
    return additional.merged(Demands(executor_type=AUTONOMOUS))


def resume_demands(
    hostname: str | None,
    executor_profile: str | None,
    additional: Demands = NO_DEMANDS,
    agent: RunAgent | None = None,
) -> Demands:
    """Return the demands of a resume: the session's affinity first, except for a hostname that the request names.

    The runner of the session's agent comes before both, the demands of an agent of the registry between them.
    """
    hostname = hostname if additional.hostname is None else None
    affinity = Demands(hostname=hostname, executor_profile=executor_profile)
    if agent is None:
        return affinity.merged(_start_demands(additional))
    return _demands(agent, additional, affinity)


def _demands(agent: RunAgent, additional: Demands, affinity: Demands = NO_DEMANDS) -> Demands:
    if isinstance(agent, RegistryAgent):
        return affinity.merged(agent.demands).merged(additional)
    return _demands_of_agent(agent).merged(affinity).merged(additional)


def _demands_of_agent(agent: OwnedAgent) -> Demands:
    return Demands(agent.hostname, agent.project_dir, agent.executor_profile, PROCEDURAL)


def plan_run(item: NewRun, state: LockedState) -> Plan | CoordinatorError:
    parent = None if item.parent_session_id is None else state.locked.get(item.parent_session_id)
    if item.type is RunType.START:
        # In the order of the coordinator that this one replaces: the agent and its parameters first.
        refused = _refused_by_agent(item, None, state)
        if refused is None and item.own_session not in state.created:
            refused = SessionExists(item.own_session)
        return refused or _refused_parent(item, None, parent, state) or _start(item, parent, state)
    session = state.locked.get(item.own_session)
    if session is None or not can_view(item.caller, item.own_session, session.owner, state.visible):
        return NotFound("session", item.own_session)
    refused = _refused_parent(item, session, parent, state) or _refused_by_agent(item, session, state)
    return refused or _resume(item, session, parent, state)


def changes_parent(item: NewRun, session: LockedSession | None) -> bool:
    return session is not None and item.parent_session_id not in {None, session.parent_session_id}


def _refused_parent(
    item: NewRun, session: LockedSession | None, parent: LockedSession | None, state: LockedState
) -> CoordinatorError | None:
    if item.parent_session_id is None:
        return None
    start = item.type is RunType.START
    if (
        parent is None
        or not can_view(item.caller, item.parent_session_id, parent.owner, state.visible)
        or (start and item.parent_session_id == item.own_session)
    ):
        return NotFound("parent session", item.parent_session_id)
    above = state.ancestors.get(item.parent_session_id, set())
    if item.own_session in above:
        return ParentIsDescendant(item.parent_session_id)
    if session is not None and session.owner != parent.owner:
        return ParentOfAnotherOwner(item.parent_session_id)
    deepest = len(above) + state.heights.get(item.own_session, 0)
    if (start or changes_parent(item, session)) and deepest > state.max_depth:
        return TooDeep(deepest, state.max_depth)
    return None


def _refused_by_agent(item: NewRun, session: LockedSession | None, state: LockedState) -> CoordinatorError | None:
    return None if item.callback else refused_by(item, agent_of(item, session, state.agents))


def refused_by(item: NewRun, agent: RunAgent | None) -> CoordinatorError | None:
    """Return why a run of this agent cannot have these parameters, or cannot resume a session."""
    if isinstance(agent, RegistryAgent):
        return agent.refused or _refused_by_registry(item, agent)
    if agent is None:
        return None if item.prompt_only else PromptRequired(item.parameters)
    if item.type is RunType.RESUME:
        return AgentNotResumable(agent.name)
    if agent.parameters_schema is None:
        return None
    return _unchecked(item, agent.name, agent.schema_hash, agent.parameters_schema)


def _refused_by_registry(item: NewRun, agent: RegistryAgent) -> CoordinatorError | None:
    resumes = item.type is RunType.RESUME
    if resumes and agent.is_procedural:
        return AgentNotResumable(agent.name)
    if resumes or (agent.parameters_schema is None and not agent.takes_any):
        return None if item.prompt_only else PromptRequired(item.parameters, agent.name)
    if agent.parameters_schema is None:
        return None
    return _unchecked(item, agent.name, agent.schema_hash, agent.parameters_schema)


def _unchecked(item: NewRun, agent_name: str, schema_hash: str | None, schema: str) -> SchemaUnchecked | None:
    if schema_hash is None or schema_hash == item.satisfied_schema:
        return None
    return SchemaUnchecked(agent_name, schema_hash, schema, item.parameters)


def _start(item: NewRun, parent: LockedSession | None, state: LockedState) -> Plan | CoordinatorError:
    plan = Plan(
        item,
        owner=item.start_owner if parent is None else parent.owner,
        depth=0 if parent is None else len(state.ancestors[parent.session_id]),
        agent_name=item.agent_name,
        project_dir=item.project_dir,
        scope=_merged(None if parent is None else parent.scope, item.scope),
        demands=demands_of_run(item, None, agent_of(item, None, state.agents)),
    )
    return _with_blueprint(plan, state)


def _resume(
    item: NewRun, session: LockedSession, parent: LockedSession | None, state: LockedState
) -> Plan | CoordinatorError:
    plan = Plan(
        item,
        owner=session.owner,
        depth=session.depth,
        agent_name=agent_name_of(item, session),
        project_dir=item.project_dir if item.project_dir is not None else session.project_dir,
        scope=_merged(session.scope, None if parent is None else parent.scope, item.scope),
        demands=demands_of_run(item, session, agent_of(item, session, state.agents)),
        session_seq=session.next_run,
    )
    return _with_blueprint(plan, state)


def _with_blueprint(plan: Plan, state: LockedState) -> Plan | CoordinatorError:
    """Return the plan with the blueprint of its agent, if that is one of the registry."""
    item = plan.item
    agent = state.agents.get(plan.agent_name or "")
    if not isinstance(agent, RegistryAgent) or item.callback or not (item.looks_up_agent or item.keeps_demands):
        return plan
    if agent.refused is not None:
        return agent.refused
    runtime = {"session_id": item.own_session, "run_id": item.run_id}
    values = Values(parsed(item.parameters), parsed(plan.scope), state.environment, runtime)
    blueprint = resolve_blueprint(agent, values)
    return replace(plan, blueprint=blueprint) if isinstance(blueprint, str) else blueprint


def _merged(*scopes: str | None) -> str | None:
    given = [scope for scope in scopes if scope is not None]
    if len(given) < 2:
        return given[0] if given else None
    return json.dumps(
        {key: value for scope in given for key, value in json.loads(scope).items()}, separators=(",", ":")
    )
