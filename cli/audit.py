"""`coordinator audit`: what administrators did, read from the database itself, whether anything serves or not."""

import json
from typing import Annotated

import typer

from cli.client import AsJson
from cli.database import Data, nearest_database
from cli.tables import print_table
from runtime.terminal import say


def audit(
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Only so many, the newest.")] = 100,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show who made and revoked keys, began the feed anew, and as an admin ended what is another's; newest last.

    It is kept for ever. Who ("by") is `local:USER@MACHINE` for a command that speaks to the database, `key:ID` or
    `subject:OWNER` for a request.
    """
    from models.auth.audit import entry_json, newest_acts
    from runtime.postgres import transaction

    with nearest_database(data, "coordinator audit") as engine, transaction(engine) as connection:
        entries = newest_acts(connection, limit)
    if as_json:
        say(json.dumps([entry_json(entry) for entry in entries], indent=2))
        return
    rows = [(entry.at, entry.act, entry.by, entry.target, entry.owner) for entry in entries]
    print_table(("at", "act", "by", "target", "owner"), rows)
