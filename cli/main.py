"""The `coordinator` command. Imports a command's packages only when it runs, so that `--help` and clients are quick."""

import gc
import sys
from typing import Annotated

import typer

from cli import (
    audit,
    bulk,
    client,
    drain,
    failures,
    feed,
    holds,
    keys,
    migrate,
    registries,
    runner,
    schedules,
    settings,
    top,
    transfer,
    up,
    watch,
    web,
    webhooks,
    why,
    worker,
)
from runtime.terminal import complain, complain_of_fault, fit_streams, say

# Imports create objects that stay. With Python's threshold of 700 the collector looks through them again and again,
# which takes a fifth of a start.
gc.set_threshold(100_000, 50, 100)
app = typer.Typer(
    name="coordinator",
    help="Coordinate runs of agents and batch jobs: any number of replicas, one owner per run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich cuts names of variables and options in a narrow terminal
)
app.command("up")(up.up)
app.command("web")(web.web)
app.command("worker")(worker.worker)
app.command("migrate")(migrate.migrate)
app.command("settings")(settings.settings)
app.add_typer(feed.feed, name="feed")
app.add_typer(keys.keys, name="keys")
app.command("audit")(audit.audit)
app.command("import")(transfer.import_history)
app.command("export")(transfer.export_history)
app.command("runner", context_settings={"allow_interspersed_args": False})(runner.runner)
app.command("submit")(client.submit)
app.command("runs")(client.runs)
app.command("run")(client.run)
app.command("why")(why.why)
app.command("failures")(failures.failures)
app.command("runners")(client.runners)
app.command("drain")(drain.drain)
app.add_typer(registries.commands_of("agents", "agent", "agents"), name="agents")
app.add_typer(registries.commands_of("capabilities", "capability", "capabilities"), name="capabilities")
app.add_typer(registries.commands_of("scripts", "script", "scripts"), name="scripts")
app.add_typer(registries.commands_of("mcp-servers", "MCP server", "MCP servers"), name="mcp-servers")
app.command("hold")(holds.hold)
app.command("release")(holds.release)
app.command("holds")(holds.holds)
app.command("stop")(client.stop)
app.command("replay")(bulk.replay)
app.add_typer(bulk.bulk, name="bulk")
app.add_typer(schedules.schedules, name="schedules")
app.add_typer(webhooks.webhooks, name="webhooks")
app.command("watch")(watch.watch)
app.command("top")(top.top)


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        say(f"coordinator {version('coordinator')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command line. Report an invalid setting as one line with exit code 2, not as a traceback."""
    from runtime.settings import SettingsError

    fit_streams()
    try:
        app(prog_name="coordinator")
    except SettingsError as error:
        complain(error)
        sys.exit(2)
    except Exception:  # noqa: BLE001 -- the interpreter would print its text unescaped
        complain_of_fault()
        sys.exit(1)


if __name__ == "__main__":
    main()
