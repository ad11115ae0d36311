"""A quote: prices and quantities in one document, rated as an invoice would, with no server.

`docs/pricing.md` describes the document. It is read as strictly as a catalog: exact numbers, no
unknown fields, every fault with its JSON pointer.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from farebox.catalog.code import CatalogCode
from farebox.catalog.document import read_object, value_problems
from farebox.catalog.meter import Alias
from farebox.catalog.number import plain_text
from farebox.catalog.price import Adjustments, Price
from farebox.catalog.price_check import PriceCode, check_adjustments, check_price
from farebox.catalog.problem import Problem
from farebox.catalog.yaml_text import TextFault, read_yaml
from farebox.money.amount import EXPONENTS
from farebox.money.rounding import exact_sum
from farebox.rating.charge import ChargeResult, Segment, rate_charge
from farebox.rating.usage import Usage


class QuoteCode(StrEnum):
    """What can be wrong with a quote beside its shape and its prices, in order of precedence."""

    CHARGE_MISSING = "charge_missing"
    CHARGE_AMBIGUOUS = "charge_ambiguous"
    QUANTITY_MISSING = "quantity_missing"
    VALUES_MISMATCH = "values_mismatch"


class QuoteUsage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A quantity; with `values`, one for each event, quantity and events may be left out."""

    quantity: Decimal | None = None
    dimensions: Mapping[str, str] = {}
    events: Annotated[int, Meta(ge=0)] | None = None
    values: tuple[Decimal, ...] = ()


class QuoteSegment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stretch of the period with its own price, when the price changed in the period."""

    price: Price | None = None
    usage: tuple[QuoteUsage, ...] = ()


class QuoteCharge(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A charge of one period: a price and its usage, or several segments in the order of time."""

    key: str = "usage"
    price: Price | None = None
    usage: tuple[QuoteUsage, ...] = ()
    segments: tuple[QuoteSegment, ...] = ()
    adjustments: Adjustments = Adjustments()


class QuoteDocument(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to quote: `charges`, or the fields of a single charge beside the currency."""

    currency: str
    price: Price | None = None
    usage: tuple[QuoteUsage, ...] = ()
    segments: tuple[QuoteSegment, ...] = ()
    adjustments: Adjustments = Adjustments()
    charges: tuple[QuoteCharge, ...] = ()
    aliases: tuple[Alias, ...] = ()


class Quote(Struct, frozen=True):
    """The charges of a quote as rated, or the problems that prevent it."""

    currency: str = ""
    results: tuple[ChargeResult, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def amount(self) -> Decimal:
        """The sum of all lines."""
        return exact_sum(result.amount for result in self.results)


def quote(text: bytes) -> bytes:
    """Return the quote for a JSON or YAML document as JSON lines, ending with the total.

    A document with problems gives one line for each problem and nothing else.
    """
    return write_quote(rate_quote(text))


def rate_quote(text: bytes) -> Quote:
    """Return the rated charges of a JSON or YAML document, or all that is wrong with it."""
    tree = read_yaml(text)
    if isinstance(tree, TextFault):
        place = f"line {tree.line}, column {tree.column}"
        problem = Problem(CatalogCode.MALFORMED, tree.pointer, f"{tree.message} ({place})")
        return Quote(problems=(problem,))
    document = read_object(tree.value, QuoteDocument, "")
    if isinstance(document, Problem):
        return Quote(problems=(document,))
    problems = tuple(_check(document))
    if problems:
        return Quote(problems=problems)
    aliases = {(each.dimension, each.alias): each.canonical for each in document.aliases}
    results = tuple(
        rate_charge(
            charge.key,
            [Segment(price=each.price, usages=_usages(each.usage)) for each in _segments(charge)],
            charge.adjustments,
            document.currency,
            aliases,
        )
        for charge, _ in _charges(document)
    )
    return Quote(document.currency, results)


def _usages(usages: Sequence[QuoteUsage]) -> tuple[Usage, ...]:
    return tuple(
        Usage(
            quantity=exact_sum(each.values) if each.quantity is None else each.quantity,
            dimensions=each.dimensions,
            events=len(each.values) if each.events is None else each.events,
            values=each.values,
        )
        for each in usages
    )


def _charges(document: QuoteDocument) -> list[tuple[QuoteCharge, str]]:
    """Return the charges, each with the pointer of where it stands."""
    if document.charges:
        return [(charge, f"/charges/{at}") for at, charge in enumerate(document.charges)]
    single = QuoteCharge(
        price=document.price,
        usage=document.usage,
        segments=document.segments,
        adjustments=document.adjustments,
    )
    return [(single, "")]


def _segments(charge: QuoteCharge) -> tuple[QuoteSegment, ...]:
    return charge.segments or (QuoteSegment(price=charge.price, usage=charge.usage),)


def _check(document: QuoteDocument) -> Iterator[Problem]:
    """Yield every problem; of a number out of range the first telling is enough."""
    if document.currency not in EXPONENTS:
        message = f"{document.currency!r} is not an ISO 4217 currency with a minor unit"
        yield Problem(CatalogCode.UNKNOWN_CURRENCY, "/currency", message)
    alone = document.price is not None or document.usage or document.segments
    if document.charges and alone:
        message = "give either charges or a single price with usage, not both"
        yield Problem(QuoteCode.CHARGE_AMBIGUOUS, "/charges", message)
    elif not document.charges and not alone:
        message = "give a price with usage, or charges"
        yield Problem(QuoteCode.CHARGE_MISSING, "", message)
    yield from value_problems(document, "")
    for charge, pointer in _charges(document):
        yield from _check_charge(charge, pointer)


def _check_charge(charge: QuoteCharge, pointer: str) -> Iterator[Problem]:
    if charge.segments and (charge.price is not None or charge.usage):
        message = "give either segments or a price with usage, not both"
        yield Problem(QuoteCode.CHARGE_AMBIGUOUS, f"{pointer}/segments", message)
    problems = check_adjustments(charge.adjustments, f"{pointer}/adjustments")
    for at, segment in enumerate(_segments(charge)):
        place = f"{pointer}/segments/{at}" if charge.segments else pointer
        if segment.price is not None:
            problems += check_price(segment.price, f"{place}/price")
        for number, usage in enumerate(segment.usage):
            yield from _check_usage(usage, f"{place}/usage/{number}")
    yield from (each for each in problems if each.code != PriceCode.NUMBER_OUT_OF_RANGE)


def _check_usage(usage: QuoteUsage, pointer: str) -> Iterator[Problem]:
    if any(value_problems(usage, pointer)):
        return
    if usage.quantity is None and not usage.values:
        message = "give the quantity, or the values it is the sum of"
        yield Problem(QuoteCode.QUANTITY_MISSING, pointer, message)
    if not usage.values:
        return
    if usage.quantity is not None and usage.quantity != exact_sum(usage.values):
        message = "the quantity is not the sum of the values; it may be left out"
        yield Problem(QuoteCode.VALUES_MISMATCH, f"{pointer}/quantity", message)
    if usage.events is not None and usage.events != len(usage.values):
        message = "events is not the number of values; it may be left out"
        yield Problem(QuoteCode.VALUES_MISMATCH, f"{pointer}/events", message)


def write_quote(quoted: Quote) -> bytes:
    """Return one JSON object a line: lines, unpriced usage and the total; or the problems."""
    return b"".join(msgspec.json.encode(row) + b"\n" for row in _rows(quoted))


def _rows(quoted: Quote) -> Iterator[Mapping[str, Any]]:
    if quoted.problems:
        for problem in quoted.problems:
            yield {"type": "problem", **msgspec.structs.asdict(problem)}
        return
    for result in quoted.results:
        for line in result.lines:
            amount = format(line.amount, "f")
            yield {"type": "line", **_plain(line), "amount": amount, "currency": quoted.currency}
        for item in result.unpriced:
            yield {"type": "unpriced", **_plain(item)}
    places = EXPONENTS[quoted.currency]
    total = format(quoted.amount, f".{places}f")
    yield {"type": "total", "amount": total, "currency": quoted.currency}


def _plain(value: Any) -> Any:
    """Turn values into what JSON holds: numbers as plain text, without what is empty."""
    if isinstance(value, Decimal):
        return plain_text(value)
    if isinstance(value, Struct):
        return {
            name: _plain(item)
            for name, item in msgspec.structs.asdict(value).items()
            if item is not None and item != () and item != {}
        }
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
