"""A price as a table: what it says, in the words and numbers of a price list."""

from collections.abc import Iterable
from decimal import Decimal
from typing import assert_never

from msgspec import Struct

from farebox.catalog.price import (
    Capacity,
    Dynamic,
    Flat,
    Graduated,
    GraduatedPercentage,
    Matrix,
    Package,
    Percentage,
    PerUnit,
    Price,
    Stairstep,
    Tier,
    Volume,
)
from farebox.http.pages.format import dimensions, money, quantity

ONE = Decimal(1)
Row = tuple[str, ...]


class PriceTable(Struct, frozen=True):
    """`model` names it, `head` and `rows` say it; `terms` stand below. Nothing is left out."""

    model: str
    head: Row
    rows: tuple[Row, ...]
    terms: tuple[str, ...] = ()


def price_table(price: Price, currency: str) -> PriceTable:
    """Return the price as a table; a matrix with every cell, the caller cuts."""
    match price:
        case Flat():
            return PriceTable("Flat", ("Each period",), ((money(price.amount, currency),),))
        case PerUnit():
            return PriceTable("Per unit", ("Price",), ((_per(price.unit, price.per, currency),),))
        case Graduated():
            return _tiered("Graduated", price.tiers, currency, price.flat_at_zero)
        case Volume():
            return _tiered("Volume", price.tiers, currency, price.flat_at_zero)
        case Package():
            row = (money(price.amount, currency), quantity(price.size), quantity(price.free))
            return PriceTable("Package", ("Each package", "Units in it", "Free units"), (row,))
        case Stairstep():
            rows = _ranges((tier.up_to, (money(tier.amount, currency),)) for tier in price.tiers)
            return PriceTable("Stairstep", ("Units", "Amount"), rows)
        case GraduatedPercentage():
            rows = _ranges(
                (tier.up_to, (f"{quantity(tier.percent)} %", money(tier.flat, currency)))
                for tier in price.tiers
            )
            return PriceTable("Graduated percentage", ("Value", "Percent", "Flat"), rows)
        case Percentage() | Capacity() | Matrix() | Dynamic():
            return _other(price, currency)
        case _:
            assert_never(price)


def _other(price: Percentage | Capacity | Matrix | Dynamic, currency: str) -> PriceTable:
    match price:
        case Percentage():
            return _percentage(price, currency)
        case Capacity():
            rows = tuple(
                (_limits(tier.limits, price.dimension), money(tier.amount, currency))
                for tier in price.tiers
            )
            return PriceTable("Capacity", ("Within", "Amount"), rows)
        case Matrix():
            cells: tuple[Row, ...] = tuple(
                (
                    *(cell.match.get(name, "*") for name in price.dimensions),
                    _per(cell.unit, cell.per or price.per, currency),
                )
                for cell in price.cells
            )
            default = (
                f"Anything else: {_per(price.default, price.per, currency)}"
                if price.default is not None
                else "Anything else stays unpriced and is listed."
            )
            return PriceTable("Matrix", (*price.dimensions, "Price"), cells, (default,))
        case Dynamic():
            row = ("the amount each event carries", f"\u00d7 {quantity(price.multiplier)}")
            return PriceTable("Dynamic", ("Price", "Multiplier"), (row,))
        case _:
            assert_never(price)


def _percentage(price: Percentage, currency: str) -> PriceTable:
    terms = []
    if price.minimum is not None:
        terms.append(f"At least {money(price.minimum, currency)} an event.")
    if price.maximum is not None:
        terms.append(f"At most {money(price.maximum, currency)} an event.")
    if price.free_events is not None:
        terms.append(f"The first {price.free_events:,} events are free.")
    if price.free_amount is not None:
        terms.append(f"The first {money(price.free_amount, currency)} of value are free.")
    row = (f"{quantity(price.percent)} %", money(price.fixed, currency))
    return PriceTable("Percentage", ("Of the value", "And each event"), (row,), tuple(terms))


def _tiered(model: str, tiers: tuple[Tier, ...], currency: str, flat_at_zero: bool) -> PriceTable:
    rows = _ranges(
        (
            tier.up_to,
            (
                _per(tier.unit, tier.per, currency) + (", started" if tier.round_up else ""),
                money(tier.flat, currency),
            ),
        )
        for tier in tiers
    )
    terms = ("The first tier's flat fee is due even when nothing was used.",)
    return PriceTable(model, ("Units", "Price", "Flat"), rows, terms if flat_at_zero else ())


def _ranges(tiers: Iterable[tuple[Decimal | None, Row]]) -> tuple[Row, ...]:
    rows: list[Row] = []
    below = Decimal(0)
    for up_to, cells in tiers:
        if up_to is None:
            rows.append((f"above {quantity(below)}" if below else "all", *cells))
        else:
            rows.append((f"{quantity(below)} to {quantity(up_to)}", *cells))
            below = up_to
    return tuple(rows)


def _limits(limits: object, dimension: str) -> str:
    if not isinstance(limits, dict) or not limits:
        return "anything more"
    shown = {name: f"{name} {quantity(limit)}" for name, limit in limits.items()}
    return f"{dimension}: {dimensions(shown)}"


def _per(unit: Decimal, per: Decimal, currency: str) -> str:
    return money(unit, currency) + ("" if per == ONE else f" per {quantity(per)}")
