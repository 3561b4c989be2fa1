"""Condition by which holds keep runs from being ready: read wherever a run is made ready, never by a claim."""

from typing import Final

from models.schema.sql import sql

# Holds ``h`` that apply to the run ``r``, by its columns run_id, agent_name and profile_id. One that names a run holds
# it alone; demands hold the runs that demand all of them.
_APPLIES: Final = """
    h.run_id IS NULL AND (h.everything OR h.agent_name = $r.agent_name
        OR (NOT h.everything AND h.agent_name IS NULL AND EXISTS (
            SELECT 1 FROM demand_profiles d
            WHERE d.profile_id = $r.profile_id
              AND (h.hostname IS NULL OR h.hostname = d.hostname)
              AND (h.project_dir IS NULL OR h.project_dir = d.project_dir)
              AND (h.executor_profile IS NULL OR h.executor_profile = d.executor_profile)
              AND (h.executor_type IS NULL OR h.executor_type = d.executor_type)
              AND d.tags @> h.tags)))
"""
# Two conditions, each by an index of its own: while nothing is held both are empty.
_IS_HELD: Final = """(EXISTS (SELECT 1 FROM holds h WHERE h.run_id = $r.run_id)
    OR EXISTS (SELECT 1 FROM holds h WHERE $applies))"""
ANY_SELECTOR: Final = "(SELECT true FROM holds h WHERE h.run_id IS NULL LIMIT 1)"
ANY_HOLD: Final = "(SELECT true FROM holds h LIMIT 1)"


def applies(run: str) -> str:
    """Return the condition that a hold ``h`` of several runs applies to the run of this name in SQL."""
    return sql(_APPLIES, r=run).text


def is_held(run: str) -> str:
    """Return the condition that a hold applies to the run of this name in SQL."""
    return sql(_IS_HELD, r=run, applies=applies(run)).text


IS_HELD_OF_R: Final = is_held("r")
