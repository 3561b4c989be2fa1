from typing import Annotated

from pydantic import Field

from app.schemas.base import Described, Timestamp
from models.core.callers import Role


class Me(Described):
    """Caller of this request, and the coordinator that answers it."""

    role: Annotated[Role, Field(examples=["admin"])]
    owner: Annotated[str | None, Field(description="Owner the caller acts for", examples=[None])]
    credential: Annotated[
        str,
        Field(
            description="`key:` and the id of an API key, `subject:` and the owner in a token, or `open` while "
            "authentication is off",
            examples=["key:crd_0a1b2c3d4e5f"],
        ),
    ]
    expires_at: Annotated[Timestamp | None, Field(description="End of the credential; null: none", examples=[None])]
    auth: Annotated[bool, Field(description="Whether a credential is required", examples=[True])]
    version: Annotated[str, Field(examples=["0.1.0"])]
    features: Annotated[
        list[str], Field(description="What this version offers beyond the first one", examples=[["run_search"]])
    ]
