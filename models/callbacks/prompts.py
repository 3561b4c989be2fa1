"""Prompts that tell parents the results of their children (PROTOCOL, Parents and children): text from rows, no SQL."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from models.core.statuses import RunStatus
from models.core.storable_text import storable

NO_RESULT = "(No result available)"
STOPPED = "Session was manually stopped"
UNKNOWN = "Unknown error"


@dataclass(frozen=True, slots=True)
class ChildResult:
    """End of a child's run. ``body`` is JSON text: the frame of its result event, or ``{"error": …}``."""

    session_id: str
    outcome: str
    body: str

    @property
    def status(self) -> str:
        return "completed" if self.outcome == RunStatus.COMPLETED else "failed"

    @property
    def text(self) -> str:
        if self.outcome == RunStatus.STOPPED:
            return STOPPED
        body = json.loads(self.body)
        if self.outcome == RunStatus.FAILED:
            return storable(body["error"] or UNKNOWN)
        event = body.get("data", {})
        data, text = event.get("result_data"), event.get("result_text")
        if data is None and isinstance(text, str):
            return storable(text) or NO_RESULT
        written = data if data is not None else text
        return NO_RESULT if written is None else json.dumps(written, indent=2)


def callback_prompt(results: Sequence[ChildResult]) -> str:
    if len(results) > 1:
        parts = "\n\n---\n\n".join(
            f"### Child: {result.session_id} (status: {result.status})\n\n{result.text}" for result in results
        )
        return (
            f'<agent-callback type="aggregated" count="{len(results)}">\n{parts}\n</agent-callback>\n\n'
            "Please continue with the orchestration based on these results."
        )
    (result,) = results
    completed = result.status == "completed"
    title = "Child Result" if completed else "Error"
    request = (
        "Please continue with the orchestration based on this result."
        if completed
        else "Please handle this failure and continue with the orchestration."
    )
    return (
        f'<agent-callback session="{result.session_id}" status="{result.status}">\n## {title}\n\n{result.text}\n'
        f"</agent-callback>\n\n{request}"
    )
