"""Import of agents, capabilities, scripts and MCP servers from the directory of the replaced coordinator."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.database import operator
from runtime.terminal import complain

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from models.transfer.report import Report


def import_directory(engine: "Engine", directory: Path, report: "Report", *, dry_run: bool) -> None:
    """Store the entries of the directory in one transaction, and add them to the report. Exits with 1 if it has none.

    Entries that are there with the same content are left as they are.
    """
    from app.inputs.config_files import entries_of
    from app.inputs.config_trees import DirectoryTree
    from models.core.callers import Caller, Role
    from models.core.errors import RegistryFull
    from models.registries.imports import ImportEntries, import_entries
    from models.registries.records import Kind
    from models.transfer.faults import Reason, Refusal
    from runtime.postgres import transaction

    tree = DirectoryTree(directory)
    kinds = [kind for kind in Kind if tree.has(kind)]
    if not kinds:
        complain(f"{directory} has none of the directories {', '.join(Kind)}")
        raise typer.Exit(1)
    found = entries_of(tree, kinds)
    report.notes.extend(found.notes)
    report.refuse(
        Refusal(Reason.UNUSABLE_ENTRY, refused.kind, refused.name, refused.reason) for refused in found.refused
    )
    with transaction(engine) as connection:
        item = ImportEntries(found.entries, Caller(Role.ADMIN, None, operator()))
        (done,) = import_entries(connection, [item], dry_run=dry_run)
    if isinstance(done, RegistryFull):
        detail = f"at most {done.entries:,} entries of {done.size:,} bytes together"
        report.refuse([Refusal(Reason.REGISTRY_FULL, "directory", done.noun, detail, len(found.entries))])
        report.registries = {}
        return
    report.registries = {
        kind.value: {
            "created": done.created[kind],
            "replaced": done.replaced[kind],
            "unchanged": done.unchanged[kind],
        }
        for kind in kinds
    }
