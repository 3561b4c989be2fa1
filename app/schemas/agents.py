from typing import Annotated, Literal

from pydantic import Field

from app.schemas.base import Described, MayLack, RunnerId
from app.schemas.registries import HooksShown, McpShown, SchemaShown
from app.schemas.runs import Demands

TIME_SHOWN = "ISO 8601, in UTC, with offset; empty for an agent of a runner"


class Agent(Described):
    """Agent of the registry, or of a registered runner: runs that name one go to that runner alone.

    Absent fields are not set. Unless it is asked for with `raw`, an agent of the registry comes with its capabilities
    merged.
    """

    name: Annotated[str, Field(examples=["reporter"])]
    description: Annotated[str, Field(examples=["Writes the weekly report"])]
    type: Literal["autonomous", "procedural"]
    script: Annotated[MayLack[str], Field(examples=["report"])] = None
    parameters_schema: Annotated[
        SchemaShown, Field(description="JSON Schema (Draft 7) of the parameters of its runs")
    ] = None
    output_schema: SchemaShown = None
    system_prompt: MayLack[str] = None
    mcp_servers: MayLack[McpShown] = None
    skills: MayLack[list[str]] = None
    tags: Annotated[list[str], Field(description="Empty for an agent of a runner", examples=[[]])]
    capabilities: Annotated[list[str], Field(description="Empty for an agent of a runner", examples=[[]])]
    demands: MayLack[Demands] = None
    hooks: MayLack[HooksShown] = None
    status: Literal["active", "inactive"]
    created_at: Annotated[str, Field(description=TIME_SHOWN, examples=["2026-01-01T12:00:00+00:00"])]
    modified_at: Annotated[str, Field(description=TIME_SHOWN, examples=["2026-01-01T12:00:00+00:00"])]
    command: Annotated[
        MayLack[str],
        Field(
            description="Of an agent of a runner, for those who may act for the runner", examples=["report --weekly"]
        ),
    ] = None
    runner_id: Annotated[
        MayLack[RunnerId], Field(description="Of an agent of a runner, for those who may act for the runner")
    ] = None
