from typing import Annotated, Any

from pydantic import Field

from app.schemas.base import Described


class Fault(Described):
    """Fault of a request, without the value at fault."""

    type: str
    loc: Annotated[
        list[str | int], Field(description="Place of the fault: `body`, `query`, `header` or `path`, then its parts")
    ]
    msg: str


class Problem(Described):
    """Answer of every error."""

    detail: Annotated[
        str | dict[str, Any] | list[Fault], Field(description="The fault as text, as object, or for 422 as list")
    ]


class ItemAnswer(Described):
    """Answer to one item of a list."""

    code: Annotated[int, Field(description="Status that the item alone would have been answered with", examples=[200])]
    detail: Annotated[Any, Field(description="Reason of an error, as in `Problem`")] = None


class ItemProblem(Described):
    """Answer to one item of a list that was refused."""

    code: Annotated[int, Field(examples=[404])]
    detail: Annotated[Any, Field(description="Reason, as in `Problem`", examples=["Session 'X' not found"])]
