"""The API's description is valid and complete, and every code has its heading."""

import re
from pathlib import Path
from typing import Any

from litestar.routes import HTTPRoute
from litestar.testing import TestClient
from openapi_spec_validator import OpenAPIV31SpecValidator

from farebox.http.code import all_codes, status_of
from farebox.http.operation import OPERATION
from farebox.http.reference import problems_text

DOCS = Path(__file__).parents[2] / "docs"


def test_every_code_has_its_heading() -> None:
    headings = re.findall(r"^### `(\w+)`$", problems_text(), re.M)
    assert sorted(all_codes()) == sorted(headings)


def test_the_repository_has_the_same_text_as_the_server() -> None:
    assert problems_text() == (DOCS / "problems.md").read_text()


def test_every_code_has_a_status_of_a_refusal() -> None:
    assert all(400 <= status_of(code) < 600 for code in all_codes())


def test_the_description_is_openapi_3_1(anonymous: TestClient[Any]) -> None:
    document = anonymous.get("/openapi.json").json()
    assert "3.1.0" == document["openapi"]
    OpenAPIV31SpecValidator(document).validate()


def test_every_route_of_the_api_is_described(anonymous: TestClient[Any]) -> None:
    undescribed = [
        f"{route.path} {handler.handler_name}"
        for route in anonymous.app.routes
        if isinstance(route, HTTPRoute) and route.path.startswith("/v1")
        for handler in route.route_handlers
        if OPERATION not in handler.opt and handler.http_methods != {"OPTIONS"}
    ]
    assert [] == undescribed


def test_every_route_of_the_api_is_in_its_guide(anonymous: TestClient[Any]) -> None:
    """docs/api.md names every path; the catalog's six nouns share one table."""
    guide = (DOCS / "api.md").read_text()
    paths = anonymous.get("/openapi.json").json()["paths"]
    named = {
        re.sub(r"^/v1/(meters|features|aliases|rate_cards|plans|partners)", "/v1/{noun}", path)
        for path in paths
        if path.startswith("/v1")
    }
    assert [] == sorted(path for path in named if f"`{path}`" not in guide)


def test_every_type_of_a_decimal_may_be_sent_as_a_number(anonymous: TestClient[Any]) -> None:
    schemas = anonymous.get("/openapi.json").json()["components"]["schemas"]
    amount = schemas["Fee"]["properties"]["amount"]
    assert {"type": ["string", "number"], "format": "decimal"} == amount


def test_the_pages_to_read_load_nothing_from_elsewhere(anonymous: TestClient[Any]) -> None:
    for path in ("/docs", "/docs/problems"):
        page = anonymous.get(path)
        assert 200 == page.status_code
        assert "text/html; charset=utf-8" == page.headers["content-type"]
        assert re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", page.text) == []
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "id=subject_taken" in page.text
