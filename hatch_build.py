"""The build hook of the wheel: it does not leave without the console's built files."""

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ConsoleHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds them where they are missing; an editable installation goes without."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling names it
        """Run `web/build.py` unless the files are there; raises RuntimeError without Node.js."""
        root = Path(self.root)
        built = root / "src" / "farebox" / "http" / "static" / "built" / "manifest.json"
        if version != "editable" and not built.is_file():
            runpy.run_path(str(root / "web" / "build.py"))["build"]()
