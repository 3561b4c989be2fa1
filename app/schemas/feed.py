from typing import Annotated

from pydantic import Field

from app.schemas.base import Described, MayLack


class IssueTicket(Described):
    """Filters of the stream that the ticket is for."""

    session_id: Annotated[MayLack[str], Field(description="Only this session")] = None
    run_id: Annotated[MayLack[str], Field(description="Only this run")] = None
    created_by: Annotated[MayLack[str], Field(description="Only sessions of this owner")] = None
    types: Annotated[MayLack[str], Field(description="Names of events, comma-separated")] = None


class Ticket(Described):
    """Ticket for one stream."""

    ticket: Annotated[str, Field(examples=["tkt_c2VjcmV0"])]
    expires_in: Annotated[int, Field(description="Seconds in which the stream must begin", examples=[60])]
