"""A line as a page shows it, whether it stands on an invoice or on the upcoming one."""

from datetime import datetime
from decimal import Decimal

import msgspec
from msgspec import Struct

from farebox.catalog.price import Price
from farebox.invoicing.assemble import InvoiceBody, LineDetail
from farebox.invoicing.pool_use import Episode, PoolUse, costed_episodes, exact_amount
from farebox.postgres.invoice import LineRow
from farebox.rating.charge import Breakdown, ChargeLine

BREAKDOWN_MAX = 60


class LineView(Struct, frozen=True, kw_only=True):
    """What a line charges and all that explains it, but for `hidden` rows of its breakdown.

    episodes: of a line of a pool, with what each costs; exact: what all of it costs.
    """

    position: int
    kind: str
    description: str
    quantity: Decimal | None
    amount: Decimal
    start: datetime
    end: datetime
    meter_key: str | None
    charge: ChargeLine | None
    price: Price | None
    hidden: int
    pool: PoolUse | None
    episodes: list[tuple[Episode, Decimal]]
    exact: Decimal | None


def lines_of_rows(rows: list[LineRow]) -> list[LineView]:
    """Return stored lines."""
    return [
        _view(
            row.position,
            row.kind,
            row.description,
            row.quantity,
            row.amount,
            (row.segment_start, row.segment_end),
            row.meter_key,
            msgspec.json.decode(row.detail, type=LineDetail),
        )
        for row in rows
    ]


def lines_of_body(body: InvoiceBody) -> list[LineView]:
    """Return the lines of an invoice that is not written yet."""
    return [
        _view(
            position,
            line.kind.value,
            line.description,
            line.quantity,
            line.amount,
            (line.start, line.end),
            line.meter_key,
            line.detail,
        )
        for position, line in enumerate(body.lines, 1)
    ]


def _by_size(row: Breakdown) -> tuple[Decimal, tuple[tuple[str, str], ...]]:
    return (row.quantity.copy_negate(), tuple(row.dimensions.items()))


def _view(
    position: int,
    kind: str,
    description: str,
    quantity: Decimal | None,
    amount: Decimal,
    span: tuple[datetime, datetime],
    meter_key: str | None,
    detail: LineDetail,
) -> LineView:
    charge, pool = detail.charge, detail.pool
    hidden = 0
    if charge is not None:
        # The rows that cost most come first; a price list of a thousand models has many.
        hidden = max(0, len(charge.breakdown) - BREAKDOWN_MAX)
        ordered = sorted(charge.breakdown, key=_by_size)
        charge = msgspec.structs.replace(charge, breakdown=tuple(ordered[:BREAKDOWN_MAX]))
    return LineView(
        position=position,
        kind=kind,
        description=description,
        quantity=quantity,
        amount=amount,
        start=span[0],
        end=span[1],
        meter_key=meter_key,
        charge=charge,
        price=detail.price,
        hidden=hidden,
        pool=pool,
        episodes=[] if pool is None else costed_episodes(pool),
        exact=None if pool is None else exact_amount(pool),
    )
