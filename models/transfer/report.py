from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from models.transfer.faults import MEANINGS, Reason, Refusal
from models.transfer.store import Imported

MOST_EXAMPLES: Final = 5
MOST_NOTES: Final = 100
# Parts of the former coordinator that are in a directory, not in its database.
IN_DIRECTORY: Final = ("agents", "capabilities", "scripts", "MCP servers")


@dataclass(slots=True)
class Refused:
    """Rows of one kind that were refused for one reason, with the first of them."""

    rows: int = 0
    examples: list[Refusal] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """Totals of an import. Of what was refused it keeps numbers and examples, however much that is.

    ``registries``: numbers of entries by registry, None if no directory was read; ``notes``: differences from files.
    """

    sessions: int = 0
    runs: int = 0
    events: int = 0
    already_there: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    refused: dict[tuple[str, Reason], Refused] = field(default_factory=dict)
    registries: dict[str, dict[str, int]] | None = None
    notes: list[str] = field(default_factory=list)

    def add(self, imported: Imported) -> None:
        self.sessions += imported.sessions
        self.runs += imported.runs
        self.events += imported.events
        self.already_there += imported.already_there
        self.changes.update(imported.changes)
        self.refuse(imported.refusals)

    def refuse(self, refusals: Iterable[Refusal]) -> None:
        for refusal in refusals:
            refused = self.refused.setdefault((refusal.what, refusal.reason), Refused())
            refused.rows += refusal.rows
            if len(refused.examples) < MOST_EXAMPLES:
                refused.examples.append(refusal)


def report_json(report: Report, *, dry_run: bool) -> dict[str, Any]:
    registries = (
        {} if report.registries is None else {"registries": report.registries, "notes": report.notes[:MOST_NOTES]}
    )
    return {
        "dry_run": dry_run,
        "imported": {"sessions": report.sessions, "runs": report.runs, "events": report.events},
        "already_there": {"sessions": report.already_there},
        "changes": dict(sorted(report.changes.items())),
        "refused": [
            {
                "what": what,
                "reason": reason,
                "meaning": MEANINGS[reason],
                "rows": refused.rows,
                "examples": [{"id": example.id, "detail": example.detail} for example in refused.examples],
            }
            for (what, reason), refused in sorted(report.refused.items())
        ],
        **registries,
        "not_imported": list(IN_DIRECTORY) if report.registries is None else [],
    }
