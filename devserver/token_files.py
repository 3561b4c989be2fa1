"""Names of the files in a data directory that keep the API keys of a local coordinator."""

from typing import Final

ADMIN_FILE: Final = "admin.token"
RUNNER_FILE: Final = "runner.token"
