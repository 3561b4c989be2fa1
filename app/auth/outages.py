from collections.abc import Mapping
from enum import Enum, auto
from typing import Final


class OutagePolicy(Enum):
    PROMPT = auto()  # 503 after 5 s
    HELD = auto()  # 503 after the report hold: it is sent once
    POLL = auto()  # 204 when its time is up
    STREAM = auto()  # a stream that ends at once: on anything but 200 a browser gives up for good


# All other endpoints are PROMPT.
_POLICIES: Final[Mapping[str, OutagePolicy]] = {
    "GET /sse/sessions": OutagePolicy.STREAM,
    "GET /runner/runs": OutagePolicy.POLL,
    "POST /sessions/{session_id}/bind": OutagePolicy.HELD,
    "POST /sessions/{session_id}/events": OutagePolicy.HELD,
    "POST /runner/heartbeat": OutagePolicy.HELD,
    "POST /runner/runs/report": OutagePolicy.HELD,
    "POST /runner/runs/{run_id}/started": OutagePolicy.HELD,
    "POST /runner/runs/{run_id}/completed": OutagePolicy.HELD,
    "POST /runner/runs/{run_id}/failed": OutagePolicy.HELD,
    "POST /runner/runs/{run_id}/stopped": OutagePolicy.HELD,
    "POST /runner/runs/{run_id}/released": OutagePolicy.HELD,
    "POST /runner/sessions/{session_id}/status": OutagePolicy.HELD,
}


def outage_policy_of(endpoint: str) -> OutagePolicy:
    return _POLICIES.get(endpoint, OutagePolicy.PROMPT)
