"""Check that each setting has one name and that misspelt ones are refused."""

from pathlib import Path

import pytest

from models.core.limits import Limits
from runtime.effective_settings import effective, masked
from runtime.settings import PREFIX, Settings, SettingsError, load_settings


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def complaint(environment: pytest.MonkeyPatch, name: str, value: str) -> str:
    environment.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return str(caught.value)


def test_environment_overrides_default(environment: pytest.MonkeyPatch) -> None:
    """An empty variable counts as unset."""
    assert load_settings().poll_timeout_seconds == 30
    environment.setenv("COORDINATOR_POLL_TIMEOUT_SECONDS", "12.5")
    environment.setenv("COORDINATOR_CLAIM_TIMEOUT_SECONDS", "")
    assert load_settings().poll_timeout_seconds == 12.5
    assert load_settings().claim_timeout_seconds == 15


def test_settings_are_immutable(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().insecure = True


def test_misspelt_setting_is_refused_and_right_one_is_named(environment: pytest.MonkeyPatch) -> None:
    said = complaint(environment, "COORDINATOR_CLAIM_TIMEOUT_SECOND", "5")
    assert said == "COORDINATOR_CLAIM_TIMEOUT_SECOND is not a setting. Did you mean COORDINATOR_CLAIM_TIMEOUT_SECONDS?"


def test_unknown_setting_without_near_name_is_refused(environment: pytest.MonkeyPatch) -> None:
    """Point to the list of all settings."""
    assert complaint(environment, "COORDINATOR_XYZ", "1").endswith("`coordinator settings` lists all.")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COORDINATOR_RUN_ID", "run_1"),
        ("COORDINATOR_RUN_ANYTHING_ELSE", "x"),
        ("COORDINATOR_SERVICE_HOST", "10.0.0.1"),
        ("COORDINATOR_SERVICE_PORT", "8765"),
        ("COORDINATOR_SERVICE_PORT_HTTP", "8765"),
        ("COORDINATOR_PORT", "tcp://10.0.0.1:8765"),
        ("COORDINATOR_PORT_8765_TCP", "tcp://10.0.0.1:8765"),
        ("COORDINATOR_PORT_8765_TCP_ADDR", "10.0.0.1"),
        ("COORDINATOR_WEB_SERVICE_HOST", "10.0.0.1"),
        ("COORDINATOR_WEB_PORT_8765_TCP_PROTO", "tcp"),
        ("MY_COORDINATOR_THING", "1"),
    ],
)
def test_foreign_variables_are_ignored(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Ignore a run's variables and the links of a Kubernetes service of our name."""
    environment.setenv(name, value)
    load_settings()


def test_port_that_is_no_service_link_is_refused(environment: pytest.MonkeyPatch) -> None:
    """COORDINATOR_PORT with a plain number is an intended setting that we would otherwise ignore."""
    assert "COORDINATOR_PORT is not a setting" in complaint(environment, "COORDINATOR_PORT", "8765")


def test_invalid_value_is_named_with_its_variable(environment: pytest.MonkeyPatch) -> None:
    said = complaint(environment, "COORDINATOR_POLL_TIMEOUT_SECONDS", "601")
    assert said == "COORDINATOR_POLL_TIMEOUT_SECONDS: Input should be less than or equal to 600, not '601'"


def test_error_about_a_url_never_shows_it(environment: pytest.MonkeyPatch) -> None:
    """A URL may hold a password, and logs of a failed start are read by many."""
    said = complaint(environment, "DATABASE_URL", "mysql://me:secret@db/x")
    assert "postgresql://" in said
    assert "secret" not in said


def test_runner_is_stale_before_it_is_lost(environment: pytest.MonkeyPatch) -> None:
    assert "must be more than" in complaint(environment, "COORDINATOR_LOST_AFTER_SECONDS", "30")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_postgres_url_scheme_is_accepted(environment: pytest.MonkeyPatch, scheme: str) -> None:
    environment.setenv("DATABASE_URL", f"{scheme}://me@db/x?sslmode=require")
    assert load_settings().database_url == "postgresql+psycopg://me@db/x?sslmode=require"


def test_our_variable_wins_over_the_common_one(environment: pytest.MonkeyPatch) -> None:
    """DATABASE_URL may be set for another program."""
    environment.setenv("DATABASE_URL", "postgresql://other/x")
    environment.setenv("COORDINATOR_DATABASE_URL", "postgresql://ours/x")
    environment.setenv("REDIS_URL", "redis://common/1")
    loaded = load_settings()
    assert loaded.database_url == "postgresql+psycopg://ours/x"
    assert loaded.redis_url == "redis://common/1"
    sources = {row.name: row.source for row in effective(loaded)}
    assert sources["COORDINATOR_DATABASE_URL"] == "COORDINATOR_DATABASE_URL"
    assert sources["COORDINATOR_REDIS_URL"] == "REDIS_URL"
    assert sources["COORDINATOR_LOG_LEVEL"] == "default"


def test_missing_server_url_is_an_error(environment: pytest.MonkeyPatch) -> None:
    """Assume no default address: it could be another program's database."""
    environment.setenv("DATABASE_URL", "postgresql://db/x")
    with pytest.raises(SettingsError, match=r"COORDINATOR_REDIS_URL \(or REDIS_URL\) is not set"):
        load_settings().need_servers()


def test_lists_are_separated_by_commas(environment: pytest.MonkeyPatch) -> None:
    """Ignore spaces and empty pieces."""
    environment.setenv("COORDINATOR_ALLOWED_HOSTS", "a.example, b.example,")
    assert load_settings().allowed_hosts == ("a.example", "b.example")
    assert load_settings().cors_origins is None


def test_no_setting_has_a_name_that_others_set(environment: pytest.MonkeyPatch) -> None:
    """Kubernetes sets COORDINATOR_PORT, the runner COORDINATOR_RUN_*; one of these names is a setting's for good."""
    taken = [name for name in Settings.model_fields if name in {"port", "host"} or name.startswith("run_")]
    assert taken == ["run_events_max"]
    environment.setenv("COORDINATOR_RUN_EVENTS_MAX", "7")
    environment.setenv("COORDINATOR_RUN_RESULT_FILE", "/tmp/result")  # noqa: S108 -- a name, not opened
    assert load_settings().run_events_max == 7


def test_effective_settings_have_name_value_unit_and_meaning(environment: pytest.MonkeyPatch) -> None:
    rows = effective(load_settings())
    assert len(rows) == len(Settings.model_fields)
    assert all(row.description and row.name.startswith(PREFIX) for row in rows)
    bare = [row.name for row in rows if row.value.replace(".", "").isdigit() and not row.unit]
    assert bare == [f"COORDINATOR_{name}" for name in ("LISTEN_HOST", "LISTEN_PORT", "METRICS_PORT", "METRICS_HOST")]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db:5432/x", "postgresql://me:***@db:5432/x"),
        ("postgresql://me:s@cr@et@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me@db/x?password=secret&sslmode=require", "postgresql://me@db/x?password=***&sslmode=require"),
        ("redis://:secret@cache/1", "redis://:***@cache/1"),
        ("redis://cache/1", "redis://cache/1"),
        ("redis://[secret", "***"),
    ],
)
def test_password_is_never_shown(url: str, shown: str) -> None:
    """Hide it wherever it stands in the URL."""
    assert masked(url) == shown


def test_printed_settings_object_shows_no_urls(environment: pytest.MonkeyPatch) -> None:
    """Tracebacks print arguments."""
    assert "hidden" not in repr(Settings(database_url="postgresql://me:hidden@db/x", redis_url="redis://:hidden@c"))


def test_limits_of_default_settings_are_default_limits(environment: pytest.MonkeyPatch) -> None:
    """Verbs called without limits, as in tests, decide as a coordinator without settings does."""
    assert Limits(**load_settings().deadlines()) == Limits()


OIDC = {
    "OIDC_ISSUER": "https://login.example",
    "OIDC_AUDIENCE": "coordinator",
    "OIDC_CLIENT_ID": "console",
    "CONSOLE_URL": "https://runs.example/prefix/console/",
}


def set_oidc(environment: pytest.MonkeyPatch, **changed: str) -> None:
    for name, value in {**OIDC, **changed}.items():
        environment.setenv(PREFIX + name, value)


def test_sign_in_by_oidc_reads_its_secret_from_a_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Complete the scopes and the address; show the secret nowhere."""
    file = tmp_path / "secret"
    file.write_text("hidden\n")
    set_oidc(environment, OIDC_CLIENT_SECRET_FILE=str(file), OIDC_SCOPES="profile, email")
    settings = load_settings()
    assert settings.oidc_client_secret == "hidden"
    assert settings.oidc_scopes == ("openid", "profile", "email")
    assert settings.console_url == "https://runs.example/prefix/console"
    assert "hidden" not in repr(settings)
    assert "hidden" not in str(effective(settings))
    environment.setenv(f"{PREFIX}OIDC_CLIENT_SECRET", "another")
    with pytest.raises(SettingsError, match="both set, to different secrets"):
        load_settings()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"CONSOLE_URL": ""}, "OIDC_CLIENT_ID needs"),
        ({"OIDC_ISSUER": "", "OIDC_AUDIENCE": ""}, "OIDC_CLIENT_ID needs"),
        ({"OIDC_CLIENT_ID": "", "OIDC_CLIENT_SECRET": "x"}, "names no client"),
        ({"CONSOLE_URL": "http://runs.example/console"}, "must begin with https"),
        ({"CONSOLE_URL": "https://runs.example/"}, "must end with /console"),
        ({"CONSOLE_URL": "https://me@runs.example/console"}, "must end with /console"),
        ({"CONSOLE_URL": "https://runs.example/console?x=/console"}, "must end with /console"),
        ({"CONSOLE_URL": "https://runs.example:port/console"}, "must begin with https"),
        ({"CONSOLE_URL": "https:///console"}, "must begin with https"),
        ({"OIDC_SCOPES": "openid profile"}, "scopes without blanks"),
        ({"OIDC_SIGN_IN_CLAIMS": "both"}, "id_token"),
    ],
)
def test_impossible_sign_in_by_oidc_is_refused(
    environment: pytest.MonkeyPatch, changed: dict[str, str], said: str
) -> None:
    set_oidc(environment, **changed)
    with pytest.raises(SettingsError, match=said):
        load_settings()
