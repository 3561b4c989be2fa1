import json
from typing import Annotated

import typer

from cli.client import AsJson
from cli.database import Data, nearest_database
from runtime.terminal import say


def audit(
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Number of newest entries to show.")] = 100,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show what administrators did, newest last.

    Lists keys created and revoked, feed epochs rotated, and runs, sessions and runners of another owner that an admin
    ended. Entries are kept for ever. The column `by` is `local:USER@MACHINE` for a command on the database, `key:ID` or
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
    from cli.tables import print_table

    print_table(("at", "act", "by", "target", "owner"), rows)
