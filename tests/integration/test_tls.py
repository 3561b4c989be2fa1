"""TLS to Postgres and Redis: URL options are applied, and a server with another certificate is refused."""

from pathlib import Path

import pytest
import redis
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from runtime.postgres import sync_engine, transaction
from runtime.redis_client import sync_client
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.tls import behind_tls, self_signed
from tests.support.web import served, until_ready


def test_web_process_serves_over_tls_to_both_servers(settings: Settings, tmp_path: Path) -> None:
    """Use `sslmode=verify-full` and `rediss://` with a private authority.

    A run completes, and Redis messages arrive.
    """
    trusted = self_signed(tmp_path, "ours")
    with (
        behind_tls(settings.database_url, trusted) as database_url,
        behind_tls(settings.redis_url, trusted) as redis_url,
        served(
            settings.model_copy(
                update={
                    "database_url": f"{database_url}?sslmode=verify-full&sslrootcert={trusted.certificate}",
                    "redis_url": f"{redis_url}?ssl_ca_certs={trusted.certificate}",
                }
            )
        ) as web,
    ):
        until_ready(web)
        run = web.client.finished(web.client.register())
        assert web.client.status(run["run_id"]) == "completed"
        eventually(lambda: web.app.state.web.subscription.connected, what="Redis")


def test_postgres_with_another_certificate_is_refused(settings: Settings, tmp_path: Path) -> None:
    """Send nothing to the other server."""
    trusted, foreign = self_signed(tmp_path, "ours"), self_signed(tmp_path, "foreign")
    with behind_tls(settings.database_url, foreign) as url:
        asked = {"database_url": f"{url}?sslmode=verify-full&sslrootcert={trusted.certificate}"}
        engine = sync_engine(settings.model_copy(update=asked))
        with pytest.raises(OperationalError, match="certificate verify failed"), transaction(engine) as connection:
            connection.execute(text("SELECT 1"))
        engine.dispose()


def test_redis_with_another_certificate_is_refused(settings: Settings, tmp_path: Path) -> None:
    trusted, foreign = self_signed(tmp_path, "ours"), self_signed(tmp_path, "foreign")
    with behind_tls(settings.redis_url, foreign) as url:
        client = sync_client(f"{url}?ssl_ca_certs={trusted.certificate}")
        with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
            client.ping()
        client.close()
    with behind_tls(settings.redis_url, trusted) as url:
        client = sync_client(f"{url}?ssl_ca_certs={trusted.certificate}")
        assert client.ping()
        client.close()
