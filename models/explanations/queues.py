"""Ready runs that compete for the same runners, and the claim that a pass of dispatch would make now: a dry run."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from models.claims.claim import (
    PollCandidate,
    ReadyRun,
    assign_runs,
    poll_candidate,
    read_ranges,
    unsatisfied_polls,
)
from models.claims.matching import Demands
from models.claims.watermarks import HIGHEST, LOWEST, ScanRange
from models.core.limits import Limits
from models.explanations.runner_facts import RunnerFacts
from models.schema.sql import sql

MOST_PROFILES: Final = 1_000
MOST_READ: Final = 1_001
# Bounds of one explanation: index entries of ready runs, and comparisons of offers with demands (about 30 ms).
MOST_ENTRIES: Final = 50_000
MOST_COMPARISONS: Final = 50_000
LEAST_READ: Final = 50

# Find the profiles that have ready runs, each by one probe of the index, whatever number of runs waits. Count the fewer
# of each the more there are.
_READY_PROFILES: Final = sql("""
    WITH RECURSIVE queues AS (
        (SELECT r.profile_id FROM runs r WHERE r.status = $PENDING AND r.ready ORDER BY r.profile_id LIMIT 1)
        UNION ALL
        SELECT next.profile_id
        FROM queues q
        CROSS JOIN LATERAL (
            SELECT r.profile_id FROM runs r
            WHERE r.status = $PENDING AND r.ready AND r.profile_id > q.profile_id
            ORDER BY r.profile_id LIMIT 1
        ) next
    )
    SELECT d.profile_id, d.hostname, d.project_dir, d.executor_profile, d.executor_type, d.tags, waiting.runs,
        waiting.runs < bound.runs AS exact
    FROM (SELECT least(:each, greatest(:least, :entries / greatest(count(*), 1))) AS runs FROM queues) bound
    CROSS JOIN (SELECT profile_id FROM queues LIMIT :most) q
    JOIN demand_profiles d ON d.profile_id = q.profile_id
    CROSS JOIN LATERAL (
        SELECT count(*) AS runs FROM (
            SELECT FROM runs r
            WHERE r.status = $PENDING AND r.ready AND r.profile_id = q.profile_id LIMIT bound.runs) counted
    ) waiting
""")


@dataclass(frozen=True, slots=True)
class ReadyProfile:
    """Profile with ready runs: how many, as far as they were counted; ``exact`` False: at least so many."""

    demands: Demands
    runs: int
    exact: bool


def ready_profiles(conn: Connection, *, each: int = 0) -> dict[int, ReadyProfile]:
    """Return at most ``MOST_PROFILES`` profiles that have ready runs, and count up to ``each`` of these."""
    values = {"most": MOST_PROFILES, "each": each, "least": LEAST_READ if each else 0, "entries": MOST_ENTRIES}
    return {
        profile_id: ReadyProfile(
            Demands(hostname, project_dir, executor_profile, executor_type, tuple(tags)), runs, exact
        )
        for profile_id, hostname, project_dir, executor_profile, executor_type, tags, runs, exact in conn.execute(
            _READY_PROFILES, values
        )
    }


def satisfied_by(runners: Sequence[RunnerFacts], profiles: Mapping[int, Demands]) -> list[int]:
    """Return the profiles that one of the runners satisfies; of many runners only the first ones are asked."""
    asked = runners[: max(1, MOST_COMPARISONS // max(len(profiles), 1))]
    return [
        profile_id
        for profile_id, demands in profiles.items()
        if any(runner.offer.satisfies(demands) for runner in asked)
    ]


def read_queue(
    conn: Connection, profile_ids: Collection[int], limits: Limits, *, lowest: int = LOWEST
) -> Sequence[ReadyRun]:
    """Return the best ready runs of these profiles, in the order of claims: ``MOST_READ``, or fewer of many profiles.

    ``lowest``: the priority below which none is wanted; ageing may lift any.
    """
    low = LOWEST if limits.priority_ageing > 0 else lowest
    ranges = [ScanRange(profile_id, low, HIGHEST) for profile_id in sorted(profile_ids)]
    return read_ranges(conn, ranges, (), most_read(len(ranges)), limits.priority_ageing)


def most_read(profiles: int) -> int:
    return min(MOST_READ, max(LEAST_READ, MOST_ENTRIES // max(profiles, 1)))


def dry_claim(
    queue: Sequence[ReadyRun], runners: Iterable[RunnerFacts], profiles: Mapping[int, Demands]
) -> dict[str, str]:
    """Return which runner a pass of dispatch would give each of these runs to, by the matchmaker's own assignment."""
    wanted = {run.profile_id for run in queue}
    polling = [runner for runner in runners if runner.asks][: max(1, MOST_COMPARISONS // max(len(wanted), 1))]
    polls: list[PollCandidate] = []
    for runner in polling:
        matches = frozenset(
            profile_id
            for profile_id in wanted
            if profile_id in profiles and runner.offer.satisfies(profiles[profile_id])
        )
        for ask in runner.asks:
            poll = poll_candidate(ask, runner.offer, runner.capacity, runner.owner)
            poll.left, poll.matches = ask.wanted, matches
            polls.append(poll)
    free_capacity = {
        runner.runner_id: runner.capacity - runner.in_hand for runner in polling if runner.capacity is not None
    }
    unsatisfied = unsatisfied_polls(sorted(polls, key=lambda poll: poll.ask.poll_id), free_capacity)
    plan, _ = assign_runs(queue, unsatisfied, free_capacity)
    return {run_id: poll.ask.runner_id for run_id, poll in plan}
