from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, built once from the settings and passed to the verbs that need them.

    ``priority_ageing``: seconds in which a ready run gains one priority (``models.claims.ageing``); 0 turns it off.
    """

    claim_timeout: float = 15
    start_timeout: float = 120
    stop_timeout: float = 60
    stale_after: float = 30
    lost_after: float = 60
    forget_runner: float = 86_400
    orphan_after: float = 900
    no_match_timeout: int = 300
    priority_ageing: float = 0
    told_heartbeat: int = 60
    told_heartbeat_instance: int = 10
    report_hold: float = 25
    max_depth: int = 10


DEFAULT_LIMITS = Limits()
