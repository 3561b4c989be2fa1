"""Mark items of a batch that the one statement of the plain case leaves to the verb of all cases."""

from enum import Enum, auto
from typing import Final


class NotPlain(Enum):
    """Result of an item that the statement of the plain case neither changed nor answered."""

    NOT_PLAIN = auto()


NOT_PLAIN: Final = NotPlain.NOT_PLAIN
