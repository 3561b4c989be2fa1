import stat
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from cli.database import data_directory
from runtime.terminal import complain

if TYPE_CHECKING:
    from runtime.settings import Settings

from devserver.token_files import ADMIN_FILE

TokenOption = Annotated[
    str,
    typer.Option(metavar="TOKEN", help="API key or token (COORDINATOR_TOKEN, or a file: COORDINATOR_TOKEN_FILE)."),
]

CaOption = Annotated[
    str,
    typer.Option(metavar="FILE", help="Trust only the certificates in this file (COORDINATOR_CA_FILE)."),
]


def warn_of_shown_token() -> None:
    complain(
        "warning: --token shows the token to all who list the processes of this machine, and to the shell's history; "
        "use COORDINATOR_TOKEN_FILE, ~/.config/coordinator/token or COORDINATOR_TOKEN"
    )


class TokenFileError(ValueError):
    pass


def find_token(given: str, urls: Sequence[str], settings: "Settings") -> str | None:
    """Return the token to send, None without one.

    The first of: `--token`, COORDINATOR_TOKEN, COORDINATOR_TOKEN_FILE, `~/.config/coordinator/token`, and the key of
    `coordinator up --auth`, which is sent to loopback addresses only. Raises TokenFileError for a file that others may
    read.
    """
    if given or settings.token:
        return given or settings.token
    if settings.token_file:
        return read_token(_at_home(settings.token_file))
    kept = [_at_home("~/.config/coordinator/token")]
    if all(_is_here(url) for url in urls):
        kept.append(data_directory(None, settings) / ADMIN_FILE)
    return next((read_token(path) for path in kept if path.is_file()), None)


def read_token(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenFileError(f"{path} cannot be read: {error}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise TokenFileError(f"{path} may be read by others; chmod 600 {path}")
    if not text.isascii() or not text.isprintable() or not text:
        raise TokenFileError(f"{path} does not hold one line with a token")
    return text


def _at_home(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:
        # The user has no home, as in many containers.
        return Path(name)


def _is_here(url: str) -> bool:
    hostname = urlsplit(url).hostname or ""
    try:
        return hostname == "localhost" or ip_address(hostname).is_loopback
    except ValueError:
        return False
