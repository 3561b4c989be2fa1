"""`coordinator migrate`: bring the database's schema to the one this version needs."""

import typer

from cli.terminal import complain, say


def migrate() -> None:
    """Apply what is missing of the schema; safe to repeat, and to run from several places at once."""
    from models.migrate import upgrade
    from runtime.effective_settings import masked
    from runtime.logs import configure_logs
    from runtime.postgres import is_unavailable
    from runtime.settings import load_settings

    settings = load_settings()
    settings.need_servers()
    configure_logs(settings, process="migrate")
    try:
        before, after = upgrade(settings.database_url, say=say)
    except Exception as error:
        if not is_unavailable(error):
            raise
        complain(f"{masked(settings.database_url)} does not answer: {error}")
        raise typer.Exit(1) from error
    if before == after:
        say(f"schema is at {after}; nothing to do")
    else:
        say(f"schema migrated from {before or 'nothing'} to {after}")
