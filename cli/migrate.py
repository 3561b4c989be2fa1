import typer

from cli.database import Data, nearest_settings, sentences
from runtime.terminal import complain, say


def migrate(data: Data = None) -> None:
    """Migrate the database schema to this version.

    Safe to repeat, and to run from several places at once. Needs no Redis.
    """
    from models.schema.migrate import MigrationBusy, UnknownRevision, upgrade
    from runtime.logs import configure_logs

    settings = nearest_settings(data)
    configure_logs(settings, process="migrate")
    try:
        with sentences(settings):
            before, after = upgrade(settings.database_url, say=say)
    except (MigrationBusy, UnknownRevision) as error:
        complain(error)
        raise typer.Exit(1) from error
    if before == after:
        say(f"schema is at {after}; nothing to do")
    else:
        say(f"schema migrated from {before or 'nothing'} to {after}")
