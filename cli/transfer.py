"""Commands `import` and `export`: take over history and entries of the coordinator that this one replaces, and back."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client import AsJson
from cli.database import Data, database, nearest_settings, operator
from runtime.terminal import complain, say

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from models.transfer.old_file import OldFile
    from models.transfer.report import Report
    from runtime.settings import Settings

Directory = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="Directory that holds agents/, capabilities/, scripts/ and mcp-servers/.",
    ),
]
LONGEST_OWNER = 255
# Progress is printed once for so many events.
_TELL_EVENTS = 100_000


def import_history(
    sqlite: Annotated[
        Path | None, typer.Option("--sqlite", metavar="FILE", exists=True, dir_okay=False, help="Database to read.")
    ] = None,
    config: Directory = None,
    *,
    owner: Annotated[str, typer.Option(help="Owner of all imported sessions (default: none).")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check everything, print the report, write nothing.")
    ] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Import sessions, runs and events from the SQLite file, and agents, capabilities, scripts and MCP servers from the
    directory of the coordinator that this one replaces.

    Each session comes whole or not at all, and the report says why. Safe to repeat, also after it was killed: nothing
    comes twice. An entry of the directory replaces one of its name here; other entries stay. Exits with 1 if anything
    was refused. Needs no Redis. docs/moving-in.md says what differs.
    """
    from contextlib import ExitStack

    from cli.config_import import import_directory
    from models.transfer.old_file import UnreadableFile, open_old_file
    from models.transfer.report import Report, report_json

    if sqlite is None and config is None:
        raise typer.BadParameter("should name a file or a directory", param_hint="--sqlite, --config")

    if owner and not (owner.strip() and owner.isprintable() and len(owner) <= LONGEST_OWNER):
        raise typer.BadParameter(f"should be at most {LONGEST_OWNER} printable characters", param_hint="--owner")
    settings = nearest_settings(data)
    try:
        with ExitStack() as opened:
            file = None if sqlite is None else opened.enter_context(open_old_file(sqlite))
            engine = opened.enter_context(database(settings, "coordinator import"))
            _need_schema(engine)
            report = Report()
            if config is not None:
                import_directory(engine, config, report, dry_run=dry_run)
            if file is not None:
                import_file(engine, settings, file, owner or None, dry_run=dry_run, report=report)
    except UnreadableFile as fault:
        complain(f"{sqlite} {fault}")
        raise typer.Exit(1) from fault
    shown = report_json(report, dry_run=dry_run)
    if as_json:
        say(json.dumps(shown, indent=2))
    else:
        _show(shown)
    if report.refused:
        raise typer.Exit(1)


def export_history(
    sqlite: Annotated[Path, typer.Option("--sqlite", metavar="FILE", dir_okay=False, help="File to create.")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Export sessions, runs and events into an SQLite file that the replaced coordinator opens.

    The file is of one moment, while replicas may serve. An existing file is never overwritten. Lost are owners, labels,
    priorities, delays and time limits of runs; docs/moving-in.md says what else. Needs no Redis.
    """
    import sqlite3

    from models.transfer.export import export_history as exported
    from models.transfer.new_file import write_file
    from runtime.postgres import snapshot

    settings = nearest_settings(data)
    try:
        with database(settings, "coordinator export") as engine:
            _need_schema(engine)
            with snapshot(engine) as connection:
                written = write_file(sqlite, exported(connection))
    except FileExistsError as fault:
        complain(f"{sqlite} exists: name a file that does not")
        raise typer.Exit(1) from fault
    except (OSError, sqlite3.Error) as fault:
        complain(f"{sqlite} cannot be written: {fault}")
        raise typer.Exit(1) from fault
    if as_json:
        say(json.dumps(asdict(written)))
    else:
        say(f"exported {written.sessions:,} sessions, {written.runs:,} runs, {written.events:,} events to {sqlite}")


def _need_schema(engine: "Engine") -> None:
    from models.schema.revisions import schema_fault
    from runtime.postgres import transaction

    with transaction(engine) as connection:
        fault = schema_fault(connection)
    if fault is not None:
        complain(fault)
        raise typer.Exit(1)


def import_file(
    engine: "Engine",
    settings: "Settings",
    file: "OldFile",
    owner: str | None,
    *,
    dry_run: bool = False,
    report: "Report | None" = None,
) -> "Report":
    """Import all groups of the file, each in a transaction of its own; a large session is a group by itself.

    Return the report, the given one if there is one.
    """
    from models.transfer.convert import Bounds
    from models.transfer.faults import RowFault
    from models.transfer.report import Report
    from models.transfer.store import import_group, refusal
    from runtime.postgres import transaction

    bounds = Bounds(settings.parameters_bytes, settings.event_bytes)
    report = report or Report()
    planned: dict[str, int] | None = {} if dry_run else None
    told = 0
    for group in file.groups():
        by = None if report.sessions else operator()
        try:
            with transaction(engine) as connection:
                imported = import_group(connection, file, group, owner, bounds, by=by, planned=planned)
        except RowFault as fault:
            report.refuse(refusal(session, fault) for session in group.sessions)
            continue
        report.add(imported)
        if report.events >= told + _TELL_EVENTS:
            told = report.events
            complain(f"{report.events:,} events of {report.sessions:,} sessions")
    report.refuse(file.strays())
    return report


def _show(shown: dict[str, Any]) -> None:
    verb = "would import" if shown["dry_run"] else "imported"
    numbers = ", ".join(f"{number:,} {name}" for name, number in shown["imported"].items())
    say(f"{verb} {numbers}; {shown['already_there']['sessions']:,} sessions were there already")
    for kind, done in shown.get("registries", {}).items():
        say(f"{kind}: " + ", ".join(f"{number:,} {name}" for name, number in done.items()))
    for note in shown.get("notes", ()):
        say(f"note: {note}")
    for name, number in shown["changes"].items():
        say(f"changed: {name}: {number:,}")
    for refused in shown["refused"]:
        say(f"refused: {refused['rows']:,} x {refused['what']}, {refused['reason']}: {refused['meaning']}")
        for example in refused["examples"]:
            say(f"  {example['id']}: {example['detail']}")
    if shown["not_imported"]:
        say(f"not imported: {', '.join(shown['not_imported'])}; --config names their directory")
