"""`coordinator migrate`: bring the database's schema to the one this version needs."""

import sys

import typer


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
        before, after = upgrade(settings.database_url, say=print)
    except Exception as error:
        if not is_unavailable(error):
            raise
        print(f"coordinator: {masked(settings.database_url)} does not answer: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    if before == after:
        print(f"schema is at {after}; nothing to do")
    else:
        print(f"schema migrated from {before or 'nothing'} to {after}")
