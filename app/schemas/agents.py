from typing import Annotated, Any, Literal

from pydantic import Field

from app.schemas.base import Described, MayLack, RunnerId


class Agent(Described):
    """Agent that a registered runner provides. Runs that name it go to that runner alone."""

    name: Annotated[str, Field(examples=["reporter"])]
    description: Annotated[str, Field(examples=["Writes the weekly report"])]
    type: Literal["procedural"]
    parameters_schema: Annotated[
        MayLack[dict[str, Any]],
        Field(description="JSON Schema (Draft 7) of the parameters of its runs; absent: any object"),
    ] = None
    tags: Annotated[list[str], Field(description="Always empty", examples=[[]])]
    capabilities: Annotated[list[str], Field(description="Always empty", examples=[[]])]
    status: Literal["active"]
    created_at: Annotated[str, Field(description="Always empty", examples=[""])]
    modified_at: Annotated[str, Field(description="Always empty", examples=[""])]
    command: Annotated[
        MayLack[str],
        Field(description="For those who may act for its runner, absent for others", examples=["report --weekly"]),
    ] = None
    runner_id: Annotated[
        MayLack[RunnerId], Field(description="For those who may act for its runner, absent for others")
    ] = None
