"""A reading on its way from an event to whatever it leads to."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from msgspec import Struct


class ReadingAt(Struct, frozen=True, kw_only=True):
    """A reading with its dimensions by name; `customer` where the event itself named it.

    sequence, received_at: its place in the stream; none for an event that is not in it. draw: the
    id of the draw that the event says it was written for (`fareboxdraw`).
    """

    meter: str
    value: Decimal | str
    dimensions: Mapping[str, str]
    subject: str
    customer: str
    time: datetime
    sequence: int | None
    received_at: datetime | None = None
    voided: bool = False
    draw: str | None = None
