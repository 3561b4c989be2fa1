"""Build the console before a wheel is packed, so that it is served from an installed package without Node."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ConsoleHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build into app/static/console. An editable install has the sources: `coordinator up` builds them.

        Raises CannotBuild or FileNotFoundError: a wheel without its console would be noticed after it is deployed.
        """
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        # Found beside this file only, not where hatch is.
        from devserver.console_build import TARGET, build, files_of_newest  # noqa: PLC0415

        build()
        root = Path(self.root)
        files = [path for path in files_of_newest(TARGET) if path.is_file()]
        if TARGET / "index.html" not in files or len(files) == 1:
            raise FileNotFoundError(
                "app/static/console/index.html: these sources hold neither the console nor its build"
            )
        # Not the whole directory: it keeps the assets of earlier builds for pages that are open.
        build_data["artifacts"] += [path.relative_to(root).as_posix() for path in files]
