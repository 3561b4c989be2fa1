import json
import re
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client import AsJson
from cli.database import Data, nearest_database, operator
from runtime.terminal import complain, say

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from models.auth.keys import Key
    from models.core.callers import Role


keys = typer.Typer(
    help="Create, list and revoke API keys. Once one was created, every request needs a key.", no_args_is_help=True
)

NAME = "coordinator keys"
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@keys.command("create")
def create(
    role: Annotated[str, typer.Option(help="Role of the key: admin, user or runner.")],
    *,
    owner: Annotated[str, typer.Option(help="Owner the key acts for. Required for user and runner keys.")] = "",
    expires: Annotated[
        str, typer.Option(metavar="90d", help="Lifetime: a number and m, h, d or w (default: unlimited).")
    ] = "",
    name: Annotated[str, typer.Option(help="Description of its use.")] = "",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it once.

    The database keeps only its hash.
    """
    from models.auth.keys import NewKey, mint_token
    from runtime.postgres import transaction

    chosen, seconds = _role(role, owner), _seconds(expires)
    token, parts = mint_token()
    new = NewKey(parts.key_id, parts.secret_hash, chosen, owner or None, name or None, seconds)
    with nearest_database(data, NAME) as engine, transaction(engine) as connection:
        key = _create(connection, new)
    if as_json:
        say(json.dumps({"key": token, **_shown(key)}, default=datetime.isoformat))
        return
    say(token)
    complain("this key is shown once: store it where only its user can read it")


@keys.command("list")
def show(data: Data = None, as_json: AsJson = False) -> None:
    """List all keys, oldest first, without secrets."""
    from models.auth.keys import list_keys
    from runtime.postgres import transaction

    with nearest_database(data, NAME) as engine, transaction(engine) as connection:
        rows = [_shown(key) for key in list_keys(connection)]
    if as_json:
        say(json.dumps(rows, indent=2, default=datetime.isoformat))
        return
    columns = ("key_id", "role", "owner", "name", "created_at", "expires_at", "last_used_at", "state")
    head = [column.replace("_", " ") for column in columns]
    from cli.tables import print_table

    print_table(head, [[row[column] for column in columns] for row in rows])


@keys.command("revoke")
def revoke(
    key_ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="Key ids as `list` shows them: crd_ and 12 digits.")
    ],
    data: Data = None,
) -> None:
    """Revoke keys for ever.

    Every replica refuses them within 5 s; streams and polls opened with them end.
    """
    from models.auth.keys import revoke_keys
    from models.core.errors import NotFound
    from runtime.postgres import transaction

    with nearest_database(data, NAME) as engine, transaction(engine) as connection:
        results = revoke_keys(connection, [key_id[:16] for key_id in key_ids], operator())
    for key_id, result in zip(key_ids, results, strict=True):
        if isinstance(result, NotFound):
            complain(f"there is no key {key_id[:16]}")
        else:
            say(f"{result.key_id} is revoked")
    if any(isinstance(result, NotFound) for result in results):
        raise typer.Exit(1)


@keys.command("keep", hidden=True)
def keep(data: Annotated[Path, typer.Option(file_okay=False)]) -> None:
    """Create the keys of `coordinator up --auth` in files: one for clients on this machine, one for its runner."""
    from devserver.embedded_server import write_private
    from devserver.token_files import ADMIN_FILE, RUNNER_FILE
    from models.auth.keys import NewKey, mint_token
    from models.core.callers import Role
    from runtime.postgres import transaction

    wanted = ((ADMIN_FILE, Role.ADMIN, None), (RUNNER_FILE, Role.RUNNER, "up"))
    with nearest_database(data, NAME) as engine:
        for file, role, owner in wanted:
            path = data / file
            with transaction(engine) as connection:
                if _is_good(connection, path):
                    continue
                token, parts = mint_token()
                _create(connection, NewKey(parts.key_id, parts.secret_hash, role, owner, f"coordinator up: {file}"))
            write_private(path, token + "\n")


def _create(connection: "Connection", new: Any) -> "Key":
    from models.auth.keys import Key, create_keys

    (key,) = create_keys(connection, [new], operator())
    if not isinstance(key, Key):
        raise TypeError(key)
    return key


def _is_good(connection: "Connection", path: Path) -> bool:
    from cli.tokens import TokenFileError, read_token
    from models.auth.keys import Key, find_keys, is_secret, parse_token

    try:
        token = parse_token(read_token(path))
    except TokenFileError:
        return False
    if token is None:
        return False
    (key,) = find_keys(connection, [token.key_id])
    return isinstance(key, Key) and is_secret(key, token) and key.lives_for != 0


def _role(role: str, owner: str) -> "Role":
    from models.core.callers import Role

    if role not in set(Role):
        raise typer.BadParameter("should be admin, user or runner", param_hint="--role")
    if role != Role.ADMIN and not owner:
        raise typer.BadParameter(f"a {role} needs an owner", param_hint="--owner")
    if owner and not (owner.strip() and owner.isprintable() and len(owner) <= 255):
        raise typer.BadParameter("should be at most 255 printable characters", param_hint="--owner")
    return Role(role)


def _seconds(expires: str) -> float | None:
    if not expires:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", expires)
    if found is None:
        raise typer.BadParameter("should be a number and m, h, d or w: 90d", param_hint="--expires")
    return float(found[1]) * _SECONDS[found[2]]


def _shown(key: "Key") -> dict[str, Any]:
    fields = {name: value for name, value in asdict(key).items() if name not in {"secret_hash", "lives_for"}}
    return {**fields, "state": key.state}
