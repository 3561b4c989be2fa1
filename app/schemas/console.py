from typing import Annotated

from pydantic import Field

from app.schemas.base import Described, Done, Validated


class OpenConsoleSession(Validated):
    """Credential to sign in to the console with."""

    api_key: Annotated[
        str, Field(min_length=1, max_length=8192, description="API key, or a token of the issuer", examples=["crd_…"])
    ]


class ConsoleSessionChanged(Described):
    """Answer to a sign-in or sign-out; the cookie is in the header."""

    ok: Done


class SignInIssuer(Described):
    """Issuer whose accounts may sign in; begin by leading the browser to `/console/sign-in`."""

    issuer: Annotated[str, Field(examples=["https://login.example"])]


class SignInMethods(Described):
    """Methods of signing in to the console."""

    api_key: Annotated[bool, Field(description="Whether a key may be shown", examples=[True])]
    oidc: Annotated[SignInIssuer | None, Field(description="Sign-in by OIDC; null: not set up")]
    error: Annotated[
        str | None,
        Field(description="Reason of the last failure of a sign-in by OIDC in this browser, a minute", examples=[None]),
    ]
