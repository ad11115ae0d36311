"""Matrix: a unit price by dimensions, found by the cell that matches most closely."""

from collections.abc import Sequence
from decimal import Decimal

from msgspec import Struct

from farebox.catalog.price import Cell, Matrix
from farebox.rating.rated import Part, PartKind, Unpriced, UnpricedReason
from farebox.rating.usage import Usage

WILDCARD = "*"

_Names = tuple[str, ...]


class _Index(Struct, frozen=True):
    """Cells by the dimensions they fix, those that fix most first."""

    groups: tuple[tuple[tuple[_Names, dict[_Names, int]], ...], ...]


# A matrix of a thousand cells is read once and looked up millions of times; the index is kept by
# identity, together with the price itself, so that the identity cannot pass to another price.
_INDEXES: dict[int, tuple[Matrix, _Index]] = {}
_INDEXES_MAX = 256


def find_cell(price: Matrix, usage: Usage) -> Cell | None:
    """Return the matching cell with most exact matches, the first of equals; none if none."""
    dimensions = usage.dimensions
    for group in _index(price).groups:
        found = None
        for names, cells in group:
            values = tuple([dimensions.get(name, "") for name in names])
            position = cells.get(values)
            if position is not None and (found is None or position < found):
                found = position
        if found is not None:
            return price.cells[found]
    return None


def has_cell(price: Matrix, usage: Usage) -> bool:
    """Tell whether a cell or the default prices the usage."""
    return price.default is not None or find_cell(price, usage) is not None


def rate_matrix(price: Matrix, usages: Sequence[Usage]) -> tuple[list[Part], tuple[Unpriced, ...]]:
    """Return a row for each usage, and the usages that no cell and no default prices."""
    parts: list[Part] = []
    unpriced: list[Unpriced] = []
    for usage in usages:
        cell = find_cell(price, usage)
        if cell is not None:
            per = price.per if cell.per is None else cell.per
            parts.append(_row(PartKind.CELL, _label(cell), usage, cell.unit, per))
        elif price.default is not None:
            parts.append(_row(PartKind.DEFAULT_CELL, "default", usage, price.default, price.per))
        else:
            unpriced.append(Unpriced(usage, UnpricedReason.NO_CELL))
    return parts, tuple(unpriced)


def _row(kind: PartKind, label: str, usage: Usage, unit: Decimal, per: Decimal) -> Part:
    return Part(
        kind,
        label,
        usage.quantity,
        usage.quantity * unit / per,
        unit,
        per,
        dimensions=usage.dimensions,
        original=usage.original,
    )


def _label(cell: Cell) -> str:
    return ", ".join([f"{name}={value}" for name, value in cell.match.items()]) or "any"


def _index(price: Matrix) -> _Index:
    known = _INDEXES.get(id(price))
    if known is not None and known[0] is price:
        return known[1]
    index = _build_index(price)
    if len(_INDEXES) >= _INDEXES_MAX:
        _INDEXES.clear()
    _INDEXES[id(price)] = (price, index)
    return index


def _build_index(price: Matrix) -> _Index:
    patterns: dict[_Names, dict[_Names, int]] = {}
    for position, cell in enumerate(price.cells):
        fixed = sorted((name, value) for name, value in cell.match.items() if value != WILDCARD)
        names = tuple(name for name, _ in fixed)
        patterns.setdefault(names, {}).setdefault(tuple(value for _, value in fixed), position)
    by_size: dict[int, list[tuple[_Names, dict[_Names, int]]]] = {}
    for names, cells in patterns.items():
        by_size.setdefault(len(names), []).append((names, cells))
    return _Index(tuple(tuple(by_size[size]) for size in sorted(by_size, reverse=True)))
