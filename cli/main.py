"""The `coordinator` command. A command loads its room only when it runs, so that `--help` and clients are quick."""

import sys
from typing import Annotated

import typer

from cli import audit, client, feed, keys, migrate, runner, settings, up, watch, web, worker
from runtime.terminal import complain, complain_of_fault, fit_streams, say

app = typer.Typer(
    name="coordinator",
    help="Coordinates runs of agents and batch jobs: any number of replicas, one owner per run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("up")(up.up)
app.command("web")(web.web)
app.command("worker")(worker.worker)
app.command("migrate")(migrate.migrate)
app.command("settings")(settings.settings)
app.add_typer(feed.feed, name="feed")
app.add_typer(keys.keys, name="keys")
app.command("audit")(audit.audit)
app.command("runner", context_settings={"allow_interspersed_args": False})(runner.runner)
app.command("submit")(client.submit)
app.command("runs")(client.runs)
app.command("run")(client.run)
app.command("runners")(client.runners)
app.command("stop")(client.stop)
app.command("watch")(watch.watch)


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
    """Run the command line; what a person can mend is said in a sentence, with exit code 2, not as a traceback."""
    from runtime.settings import SettingsError

    fit_streams()
    try:
        app(prog_name="coordinator")
    except SettingsError as error:
        complain(error)
        sys.exit(2)
    except Exception:  # noqa: BLE001 -- the interpreter would print its text as it is
        complain_of_fault()
        sys.exit(1)


if __name__ == "__main__":
    main()
