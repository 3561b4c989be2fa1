"""Keep the codes of explanations, their meanings and the page that lists them together."""

import re
from pathlib import Path

from models.explanations.reasons import MEANINGS, ReasonCode

PROTOCOL = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"


def test_page_lists_each_code_with_its_meaning() -> None:
    section = PROTOCOL.read_text().partition("## Explanations")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE)) == {
        code.value: MEANINGS[code] for code in ReasonCode
    }
