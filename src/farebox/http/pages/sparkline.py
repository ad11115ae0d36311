"""Sparklines: a small picture of some numbers as the path of an inline SVG."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from msgspec import Struct

WIDTH, HEIGHT = 120, 28
_INSET = 2


class Sparkline(Struct, frozen=True):
    """The `d` attributes of a line and of the area below it, in a box of 120 by 28."""

    line: str
    area: str
    width: int = WIDTH
    height: int = HEIGHT


def sparkline(values: Sequence[Decimal | int]) -> Sparkline | None:
    """Return the picture, its floor at zero; None where there is nothing to see.

    Coordinates are whole tenths of a pixel: nothing finer can be seen, and integers suffice.
    """
    if len(values) < 2 or not any(values):
        return None
    top, floor = max(*values, 0), min(*values, 0)
    height = 10 * (HEIGHT - 2 * _INSET)
    points = []
    for position, value in enumerate(values):
        x = position * WIDTH * 10 // (len(values) - 1)
        share = Fraction(value - floor) / Fraction(top - floor)
        y = 10 * (HEIGHT - _INSET) - int(share * height)
        points.append(f"{_tenths(x)} {_tenths(y)}")
    line = "M" + "L".join(points)
    return Sparkline(line, f"{line}L{WIDTH} {HEIGHT}L0 {HEIGHT}Z")


def _tenths(value: int) -> str:
    whole, tenth = divmod(value, 10)
    return f"{whole}.{tenth}" if tenth else str(whole)
