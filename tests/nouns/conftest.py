"""What tests of the nouns share: the files `ledger_*.py` and `catalog_desk.py` beside this one."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farebox.money.rounding import exact

# Tests are no package, so the modules are loaded by their places and known by names of their own.
_LEDGER = ("desk", "told", "granted", "oracle", "strategies", "compare")
for _name in ("catalog_desk", *(f"ledger_{name}" for name in _LEDGER)):
    _known_as = f"farebox_{_name}"
    if _known_as not in sys.modules:
        _spec = importlib.util.spec_from_file_location(
            _known_as, Path(__file__).with_name(f"{_name}.py")
        )
        assert _spec is not None
        assert _spec.loader is not None
        sys.modules[_known_as] = importlib.util.module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules[_known_as])


@pytest.fixture
def exactly() -> Iterator[None]:
    """Run a test as flows run the ledger: where an inexact operation is an error."""
    with exact():
        yield
