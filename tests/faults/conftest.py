"""The harness of fault tests: see `harness.py` beside this file."""

import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def opened_service() -> Iterator[Service]:
    """Open a data directory that vanishes afterwards; its server is not started."""
    directory = Path(tempfile.mkdtemp(prefix="farebox-"))
    # The server's account may pass through, nobody may list it.
    directory.chmod(0o711)
    service = Service(directory)
    try:
        yield service
    finally:
        service.close()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def service() -> Iterator[Service]:
    """Return a service of the test's own, not started."""
    with opened_service() as service:
        yield service


@pytest.fixture(scope="module")
def running_service() -> Iterator[Service]:
    """Return a running service that the tests of a module share; each has its organization."""
    with opened_service() as service:
        service.start()
        yield service
