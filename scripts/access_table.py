from pathlib import Path
from typing import Final

from app.auth.permissions import access_table, endpoints
from app.main import create_app
from runtime.settings import Settings

PAGE: Final = Path(__file__).parent.parent / "docs" / "security.md"
BEGIN, END = "<!-- access table -->\n", "<!-- end of access table -->"


def with_table(page: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = access_table(endpoints(create_app(Settings()).routes))
    return f"{before}{BEGIN}\n{table}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
