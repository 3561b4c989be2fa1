import re
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

# Characters of one scope (RFC 6749, 3.3).
SCOPE: Final = re.compile(r"[!#-\[\]-~]+")
CONSOLE: Final = "/console"


def _about(default: Any, description: str) -> Any:
    return Field(default, description=description)


class OidcSettings(BaseSettings):
    """Settings of the issuer of tokens, and of the sign-in to the console by it."""

    oidc_issuer: str = _about("", "Issuer of OIDC tokens: their `iss`, and the base of its discovery URL")
    oidc_audience: str = _about("", "Required audience of tokens: their `aud`")
    oidc_jwks_url: str = _about("", "URL of the issuer's keys, instead of the one in its discovery document")
    oidc_roles_claim: str = _about("permissions", "Claim whose values give roles; a dotted name reads a nested claim")
    oidc_roles: Annotated[tuple[str, ...], NoDecode] = _about(
        ("admin:full=admin", "runner:execute=runner", "user:runs=user", "user:sessions=user"),
        "Roles by value of that claim, as value=role, comma-separated",
    )
    oidc_owner_claim: str = _about("sub", "Claim with the owner that the caller acts for")
    oidc_leeway_seconds: Annotated[float, Field(ge=0, le=60)] = _about(10, "Tolerated clock difference to the issuer")
    oidc_client_id: str = _about("", "Client id of the console at the issuer; turns on its sign-in by OIDC")
    oidc_client_secret: str = Field("", description="Secret of that client; unset: a public client", repr=False)
    oidc_client_secret_file: str = _about("", "File with that secret, instead of the secret")
    oidc_scopes: Annotated[tuple[str, ...], NoDecode] = _about(
        ("openid",), "Scopes that a sign-in asks for, comma-separated; `openid` is always among them"
    )
    oidc_sign_in_claims: Literal["id_token", "access_token"] = _about(
        "id_token",
        "Token of a sign-in that gives role and owner; `access_token` is asked for COORDINATOR_OIDC_AUDIENCE",
    )
    console_url: str = _about(
        "", "Address of the console for browsers, like https://runs.example/console; /callback below it ends a sign-in"
    )

    @field_validator("oidc_roles")
    @classmethod
    def _mapped(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pair in value:
            word, _, role = pair.rpartition("=")
            if not word or role not in {"admin", "user", "runner"}:
                message = "must be word=role each, with the roles admin, user and runner"
                raise ValueError(message)
        return value

    @field_validator("oidc_scopes")
    @classmethod
    def _scopes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(SCOPE.fullmatch(scope) for scope in value):
            message = "must be scopes without blanks, comma-separated"
            raise ValueError(message)
        return value if "openid" in value else ("openid", *value)

    @field_validator("oidc_issuer", "oidc_jwks_url", "console_url")
    @classmethod
    def _https(cls, value: str) -> str:
        if value and not is_safe_url(value):
            message = "must begin with https:// (http:// only to this machine)"
            raise ValueError(message)
        return value

    @field_validator("console_url")
    @classmethod
    def _console(cls, value: str) -> str:
        value = value.rstrip("/")
        if value and (not urlsplit(value).path.endswith(CONSOLE) or not value.isascii() or set(value) & set("?#\\@ ")):
            message = "must end with /console, without user, query and fragment"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.oidc_issuer) != bool(self.oidc_audience):
            message = "COORDINATOR_OIDC_ISSUER and COORDINATOR_OIDC_AUDIENCE go together"
            raise ValueError(message)
        if self.oidc_client_id and not (self.oidc_issuer and self.console_url):
            message = "COORDINATOR_OIDC_CLIENT_ID needs COORDINATOR_OIDC_ISSUER and COORDINATOR_CONSOLE_URL"
            raise ValueError(message)
        if (self.oidc_client_secret or self.oidc_client_secret_file) and not self.oidc_client_id:
            message = "COORDINATOR_OIDC_CLIENT_SECRET is set, but COORDINATOR_OIDC_CLIENT_ID names no client"
            raise ValueError(message)
        return self


def is_safe_url(url: str) -> bool:
    """Return whether an answer from there cannot be altered on the way: https, or http to this machine."""
    try:
        parts = urlsplit(url)
        hostname, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(hostname)
    return parts.scheme == "http" and hostname in {"127.0.0.1", "::1", "localhost"}
