"""What is to be rated: quantities by dimension, with the events behind them where a price asks."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

ZERO = Decimal(0)


class Usage(Struct, frozen=True, kw_only=True):
    """A quantity of one meter in one set of dimension values.

    events: how many events it comes from, for prices with a fee per event.
    values: the reading of each event in the order of time; their sum is `quantity`. Only
        percentage prices that look at single events need them.
    original: dimension values as reported, where an alias replaced them.
    """

    quantity: Decimal
    dimensions: Mapping[str, str] = {}
    events: int = 0
    values: tuple[Decimal, ...] = ()
    original: Mapping[str, str] = {}


def total_quantity(usages: Sequence[Usage]) -> Decimal:
    """Return the sum of the quantities."""
    return sum((usage.quantity for usage in usages), ZERO)


def resolve_aliases(
    usages: Sequence[Usage], aliases: Mapping[tuple[str, str], str]
) -> tuple[Usage, ...]:
    """Replace dimension values that are aliases, and keep what was reported in `original`.

    `aliases` maps (dimension, alias) to another name, followed to its end; the catalog refuses
    circles.
    """
    if not aliases:
        return tuple(usages)
    return tuple(_resolve(usage, aliases) for usage in usages)


def _resolve(usage: Usage, aliases: Mapping[tuple[str, str], str]) -> Usage:
    original = {name: value for name, value in usage.dimensions.items() if (name, value) in aliases}
    if not original:
        return usage
    canonical = {name: _follow(name, value, aliases) for name, value in original.items()}
    return replace(
        usage,
        dimensions={**usage.dimensions, **canonical},
        original={**original, **usage.original},
    )


def _follow(dimension: str, value: str, aliases: Mapping[tuple[str, str], str]) -> str:
    for _ in aliases:
        if (dimension, value) not in aliases:
            break
        value = aliases[dimension, value]
    return value
