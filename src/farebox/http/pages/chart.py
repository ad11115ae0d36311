"""What a chart shows, as the page carries it: exact numbers as text, drawn by an island."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import msgspec
from markupsafe import Markup
from msgspec import Struct

from farebox.catalog.number import plain_text


class ChartSeries(Struct, frozen=True):
    """One colour of a chart; a value is None where there is none."""

    label: str
    values: tuple[Decimal | None, ...]
    axis: str | None = None


class Chart(Struct, frozen=True, kw_only=True):
    """A chart: `x` holds instants (then `timezone` counts) or quantities, ascending.

    kind: bars, lines, or steps, where each value stands until the next one, the last by a dot.
    span: from when to when the axis is drawn, where that is more than `x`.
    """

    kind: str
    x: tuple[datetime, ...] | tuple[Decimal, ...]
    series: tuple[ChartSeries, ...]
    label: str
    timezone: str = "UTC"
    unit: str = ""
    span: tuple[datetime, datetime] | None = None

    @property
    def json(self) -> Markup:
        """The chart as JSON that can stand inside a script element."""
        times = bool(self.x) and isinstance(self.x[0], datetime)
        text = msgspec.json.encode(
            {
                "kind": self.kind,
                "x": [_x(value) for value in self.x],
                "x_is_time": times,
                "span": None if self.span is None else [_x(end) for end in self.span],
                "timezone": self.timezone,
                "unit": self.unit,
                "series": [
                    {"label": one.label, "values": _texts(one.values), "axis": one.axis or "y"}
                    for one in self.series
                ],
            }
        ).decode()
        for sign, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
            text = text.replace(sign, escaped)
        return Markup(text)  # noqa: S704 - what could end the element is escaped just above


def _x(value: datetime | Decimal) -> str | int:
    return plain_text(value) if isinstance(value, Decimal) else int(value.timestamp())


def _texts(values: Sequence[Decimal | None]) -> list[str | None]:
    return [None if value is None else plain_text(value) for value in values]
