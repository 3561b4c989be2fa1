from models.claims.matching import Demands
from models.registries.records import Agent, RunnerDemands, Script


def demands_of_agent(agent: Agent, script: Script | None) -> Demands:
    """Return the demands of an agent's runs: those of its script first, then its own, then its type."""
    demands = _demands(None if script is None else script.demands).merged(_demands(agent.demands))
    return demands.merged(Demands(executor_type=agent.type))


def _demands(given: RunnerDemands | None) -> Demands:
    if given is None:
        return Demands()
    # An empty text demands nothing, as in submissions.
    return Demands(
        hostname=given.hostname or None,
        project_dir=given.project_dir or None,
        executor_profile=given.executor_profile or None,
        executor_type=given.executor_type or None,
        tags=tuple(given.tags),
    )
