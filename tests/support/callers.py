"""Keys, clients with credentials, and a web process with authentication."""

from collections.abc import Iterator
from contextlib import contextmanager

from models.auth.keys import NewKey, create_keys, mint_token, revoke_keys
from models.core.callers import Role
from runtime.settings import Settings
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebClient, WebInThread, served, until_ready

# Turn authentication on and make streams quick.
AUTH_ON = {"auth": True, "feed_poll_seconds": 0.05, "sse_heartbeat_seconds": 0.2}
# Name in the audit log of the party that creates and revokes keys here.
OPERATOR = "local:test@test"


def make_key(db: DbVerbs, role: Role, owner: str | None = None, expires_in: float | None = None) -> str:
    """Create a key and return its token."""
    token, (key_id, secret_hash) = mint_token()
    db.do(create_keys, [NewKey(key_id, secret_hash, role, owner, expires_in=expires_in)], OPERATOR)
    return token


def revoke(db: DbVerbs, token: str) -> None:
    db.do(revoke_keys, [token.rpartition("_")[0]], OPERATOR)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@contextmanager
def client_with(url: str, token: str) -> Iterator[WebClient]:
    """Open a client that sends this token with each call."""
    client = WebClient(url, token)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def web_with_auth(settings: Settings) -> Iterator[WebInThread]:
    """Serve a web process that requires credentials."""
    with served(settings.model_copy(update=AUTH_ON)) as web:
        until_ready(web)
        yield web
