from typing import Final

ADMIN_FILE: Final = "admin.token"
RUNNER_FILE: Final = "runner.token"
