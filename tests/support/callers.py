"""Those who call with a credential of their own, and those who should not get in."""

from collections.abc import Iterator
from contextlib import contextmanager

from models.auth.keys import NewKey, create_keys, mint_token, revoke_keys
from models.core.callers import Role
from runtime.settings import Settings
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebClient, WebInThread, served, until_ready

# Everybody is asked who they are, and streams are quick.
ASKING = {"auth": True, "feed_poll_seconds": 0.05, "sse_heartbeat_seconds": 0.2}
# As whom the audit log names whoever makes and revokes keys here.
OPERATOR = "local:test@test"


def make_key(db: DbVerbs, role: Role, owner: str | None = None, expires_in: float | None = None) -> str:
    """The token of a new key."""
    token, (key_id, secret_hash) = mint_token()
    db.do(create_keys, [NewKey(key_id, secret_hash, role, owner, expires_in=expires_in)], OPERATOR)
    return token


def revoke(db: DbVerbs, token: str) -> None:
    db.do(revoke_keys, [token.rpartition("_")[0]], OPERATOR)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@contextmanager
def calling(url: str, token: str) -> Iterator[WebClient]:
    """A client that shows this token with each call."""
    client = WebClient(url, token)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def asking(settings: Settings) -> Iterator[WebInThread]:
    """A web process that asks everybody for a credential."""
    with served(settings.model_copy(update=ASKING)) as web:
        until_ready(web)
        yield web
