"""Docs that cannot lie by silence: what the code has, found by looking, has its place on a page."""

import importlib
import inspect
import pkgutil
import re
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import pytest

import farebox
from farebox.cli.main import app
from farebox.flows.load_catalog import SECTIONS
from farebox.http.app import create_app
from farebox.http.openapi import describe_api
from farebox.http.pages.session import SessionRefusal
from farebox.http.state import State
from farebox.postgres.migrate import migrations
from farebox.rating.quote import QuoteCode

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RUN = (DOCS / "run.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
PACKAGE = ROOT / "src" / "farebox"


def headings(text: str, level: int) -> list[str]:
    return re.findall(rf"^{'#' * level} (.*)$", text, re.MULTILINE)


def section(text: str, heading: str) -> str:
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> list[str]:
    """Return the code words in the first column of the tables."""
    return re.findall(r"^\| `([^`|]+)` \|", text, re.MULTILINE)


def test_every_command_has_its_heading() -> None:
    commands = [name for name in app if not name.startswith("-")]
    documented = headings(section(RUN, "Commands"), 3)
    assert sorted(f"farebox {name}" for name in commands) == sorted(documented)


def test_every_environment_variable_has_its_row() -> None:
    used = {
        name
        for path in PACKAGE.rglob("*.py")
        for name in re.findall(r"\"(FAREBOX_[A-Z_]+)\"", path.read_text())
    }
    for_people = used - {"FAREBOX_SERVED_DATABASE_URL"}
    assert for_people == set(rows(section(RUN, "Environment")))
    assert "FAREBOX_SERVED_DATABASE_URL" in RUN


def test_every_table_has_its_row() -> None:
    made = [
        name
        for migration in migrations()
        for name in re.findall(r"^create table (\w+) \(", migration.text, re.MULTILINE)
    ]
    assert sorted(made) == sorted(rows(section(ARCHITECTURE, "The tables")))


def test_every_package_has_its_floor() -> None:
    packages = {module.name for module in pkgutil.iter_modules([str(PACKAGE)]) if module.ispkg}
    table = section(ARCHITECTURE, "The house")
    named = {
        name
        for line in table.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split(" | ")[0])
    }
    assert packages == named


def test_every_directory_of_tests_has_its_row() -> None:
    folders = {path.parent for path in (ROOT / "tests").glob("*/test_*.py")}
    named = set(rows((ROOT / "CONTRIBUTING.md").read_text()))
    assert {f"tests/{folder.name}" for folder in folders} == named


def test_every_file_that_the_architecture_names_is_there() -> None:
    inside = re.findall(r"`((?:\w+/)+\w+\.py)`", ARCHITECTURE)
    assert inside
    assert [] == [name for name in inside if not (PACKAGE / name).exists()]


def refusals() -> list[type[StrEnum]]:
    """Return every enum of refusals, found by walking the package."""
    found: dict[str, type[StrEnum]] = {}
    for module in pkgutil.walk_packages(farebox.__path__, "farebox."):
        loaded = importlib.import_module(module.name)
        for name, member in inspect.getmembers(loaded, inspect.isclass):
            if issubclass(member, StrEnum) and re.search(r"(Code|Refusal|Reason)$", name):
                found[f"{member.__module__}.{name}"] = member
    return [found[name] for name in sorted(found)]


def documented_codes() -> set[str]:
    pages = [*DOCS.glob("*.md"), PACKAGE / "http" / "problems.md"]
    text = "\n".join(page.read_text() for page in pages)
    return {
        *(heading.strip("`") for level in (2, 3, 4) for heading in headings(text, level)),
        *rows(text),
    }


@pytest.mark.parametrize("enum", refusals(), ids=lambda enum: enum.__name__)
def test_every_refusal_has_its_heading_or_row(enum: type[StrEnum]) -> None:
    if enum is SessionRefusal:
        pytest.skip("told as a sentence on the page for signing in; nobody gets to see the code")
    known = documented_codes()
    if enum is QuoteCode:
        # Four codes of one file, told in the paragraph below the table.
        known |= set(re.findall(r"`(\w+)`", (DOCS / "pricing.md").read_text()))
    missing = [code.value for code in enum if code.value not in known]
    assert [] == missing


def test_every_route_is_on_the_page_of_the_api() -> None:
    state = State(cast(Any, None), cast(Any, None), cast(Any, None), cast(Any, None), bytes)
    paths = describe_api(create_app(state), "0")["paths"]
    page = (DOCS / "api.md").read_text()
    routes = {f"{method.upper()} {path}" for path, of in paths.items() for method in of}
    named = {
        f"{method or 'GET'} {path.replace('{noun}', noun)}"
        for method, path in re.findall(r"(?:`([A-Z]+)` )?`(/[^`?]*)`", page)
        for noun in SECTIONS.values()
    }
    assert set() == {nameless(route) for route in routes} - {nameless(name) for name in named}


def nameless(route: str) -> str:
    """Leave out how a parameter is called; `/{key}` and `/{meter}` are one route."""
    return re.sub(r"\{\w+\}", "{}", route)
