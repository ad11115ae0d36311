"""The price calculator: any price and any quantities, rated by what rates the invoices."""

from decimal import Decimal

import msgspec
from litestar import get, post
from litestar.concurrency import sync_to_thread
from msgspec import Struct

from farebox.catalog.code import CatalogCode
from farebox.catalog.document import read_object
from farebox.catalog.problem import Problem
from farebox.catalog.yaml_text import TextFault, read_yaml
from farebox.http.pages.calculator_examples import BY_KEY, EXAMPLES
from farebox.http.pages.chart import Chart
from farebox.http.pages.curve import price_curve
from farebox.http.pages.form import read_form
from farebox.http.pages.page import Page, PageRequest, Viewer, render
from farebox.rating.quote import Quote, QuoteDocument, rate_quote

_FIELDS = ("currency", "price", "usage", "adjustments")
_FIRST = EXAMPLES[0]
_ENCODER = msgspec.json.Encoder(decimal_format="number")


class Calculation(Struct, frozen=True, kw_only=True):
    """What the page shows for the fields: a quote with its curve, or what is wrong with them."""

    quote: Quote
    curve: Chart | None = None

    @property
    def amount(self) -> Decimal:
        return self.quote.amount


@get("/calculator", sync_to_thread=True)
def calculator(request: PageRequest, viewer: Viewer, example: str = "") -> Page:
    """The calculator with an example, or with the fields that came in the address."""
    chosen = BY_KEY.get(example, _FIRST)
    fields = {
        "currency": chosen.currency,
        "price": chosen.price,
        "usage": chosen.usage,
        "adjustments": "",
    }
    asked = {name: value for name, value in request.query_params.items() if name in _FIELDS}
    return _render(request, viewer, {**fields, **asked}, "" if asked else chosen.key)


@post("/calculator", status_code=200)
async def calculate(request: PageRequest, viewer: Viewer) -> Page:
    """The same page for the fields that were sent; a fragment of it where the island asks."""
    form = await read_form(request)
    fields = {name: form.get(name, "") for name in _FIELDS}
    return await sync_to_thread(_render, request, viewer, fields, form.get("example", ""))


def calculate_fields(fields: dict[str, str]) -> Calculation:
    """Rate what stands in the fields.

    Each field is YAML or JSON. usage may be a plain number. Their parts are put under the names
    that a quote has, so every problem points to its field.
    """
    parts = {}
    for name in _FIELDS:
        text = fields[name].strip()
        if not text:
            continue
        tree = read_yaml(text.encode())
        if isinstance(tree, TextFault):
            place = f"line {tree.line}, column {tree.column}"
            fault = Problem(
                CatalogCode.MALFORMED, f"/{name}{tree.pointer}", f"{tree.message} ({place})"
            )
            return Calculation(quote=Quote(problems=(fault,)))
        parts[name] = tree.value
    if "usage" in parts and not isinstance(parts["usage"], list):
        parts["usage"] = [{"quantity": parts["usage"]}]
    quoted = rate_quote(_ENCODER.encode(parts))
    if quoted.problems:
        return Calculation(quote=quoted)
    document = read_object(parts, QuoteDocument, "")
    assert isinstance(document, QuoteDocument), "it was rated a line above"
    return Calculation(quote=quoted, curve=price_curve(document))


def _render(request: PageRequest, viewer: Viewer, fields: dict[str, str], example: str) -> Page:
    calculation = calculate_fields(fields)
    fragment = request.headers.get("x-fragment") == "result"
    return render(
        request,
        "calculator_result.html" if fragment else "calculator.html",
        viewer=viewer,
        status=422 if calculation.quote.problems and request.method == "POST" else 200,
        fields=fields,
        calculation=calculation,
        examples=EXAMPLES,
        example=BY_KEY.get(example),
    )
