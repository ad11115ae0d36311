"""The harness of fault tests: see `harness.py` beside this file."""

import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Tests are no package, so the module is loaded by its place and known by a name of its own.
_spec = importlib.util.spec_from_file_location(
    "farebox_faults", Path(__file__).with_name("harness.py")
)
assert _spec is not None
assert _spec.loader is not None
if "farebox_faults" not in sys.modules:
    sys.modules["farebox_faults"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["farebox_faults"])

from farebox_faults import Service  # noqa: E402


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "fault_seed" in metafunc.fixturenames:
        seeds = range(1, 11) if metafunc.config.getoption("--faults-long") else (1,)
        metafunc.parametrize("fault_seed", seeds)


@pytest.fixture
def new_service() -> Iterator[Callable[[], Service]]:
    """Return a function that opens a data directory of its own; the server is not started."""
    made: list[tuple[Service, Path]] = []

    def make() -> Service:
        directory = Path(tempfile.mkdtemp(prefix="farebox-"))
        # The server's account may pass through, nobody may list it.
        directory.chmod(0o711)
        service = Service(directory)
        made.append((service, directory))
        return service

    yield make
    for service, directory in made:
        service.close()
        shutil.rmtree(directory, ignore_errors=True)
