"""A line of a pool, opened, as it goes over the wire."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import msgspec
from msgspec import Struct

from farebox.access.id import Prefix, encode_numbered
from farebox.catalog.price import PerUnit
from farebox.flows.explain_pool import Charged, PoolExplained
from farebox.http.span import number
from farebox.invoicing.pool_use import Episode, PoolUse, PoolUseKind


class EpisodeView(Struct, frozen=True, kw_only=True):
    """Units beyond the grants in a row: from the first until the grants sufficed again.

    units: less what was taken back of them. amount: what they cost, before rounding. entries: how
    many entries of the ledger, null where that was not kept. count: how many episodes it stands
    for; more than one only in the last of very many. earlier: taken back of use that is on another
    invoice, of an earlier period or another subscription.
    """

    number: int
    starts: datetime = msgspec.field(name="from")
    ends: datetime = msgspec.field(name="to")
    units: Decimal
    amount: Decimal
    entries: int | None
    count: int
    earlier: bool


class LineGrantView(Struct, frozen=True, kw_only=True):
    """The grant that was bought, or of which units were taken back, as it was bought."""

    id: str
    key: str | None
    amount: Decimal
    cost: Decimal
    basis: str
    issued_at: datetime


class LineEntryView(Struct, frozen=True, kw_only=True):
    """An entry of the pool's statement that the line counts.

    id: of its operation. units, amount: below zero where they were taken back, before rounding.
    episode: the number of its episode. undoes: what it settles or takes back.
    """

    sequence: int
    id: str
    reason: str
    time: datetime
    units: Decimal
    amount: Decimal
    episode: int | None
    subject: str | None
    allotment: str | None
    key: str | None
    undoes: str | None
    used_at: datetime | None


class PoolLineView(Struct, frozen=True, kw_only=True):
    """What a line of a pool was made from.

    The units of all episodes, and those of all entries, add up to the line's quantity, and their
    amounts to `exact`, which is rounded once to the line's amount. entries: a page, in order.
    """

    pool: str
    name: str
    unit: str
    kind: PoolUseKind
    exact: Decimal
    grant: LineGrantView | None
    episodes: Sequence[EpisodeView]
    entries: Sequence[LineEntryView]


def pool_price(use: PoolUse | None) -> PerUnit | None:
    """Return the price of a unit beyond the grants, none of a purchase."""
    return None if use is None or use.price is None else PerUnit(unit=_plain(use.price))


def pool_line(found: PoolExplained) -> PoolLineView:
    """Return an opened line as it goes over the wire."""
    use, grant = found.use, found.grant
    return PoolLineView(
        pool=use.pool,
        name=use.name,
        unit=use.unit,
        kind=use.kind,
        exact=_plain(found.exact),
        grant=None
        if grant is None
        else LineGrantView(
            id=encode_numbered(Prefix.GRANT, found.pool_id, grant.number),
            key=grant.key,
            amount=_plain(grant.amount),
            cost=_plain(grant.cost),
            basis=grant.basis,
            issued_at=grant.issued_at,
        ),
        episodes=[
            _episode(place, one, amount) for place, (one, amount) in enumerate(found.episodes, 1)
        ],
        entries=[_entry(found, one) for one in found.entries],
    )


def _episode(place: int, one: Episode, amount: Decimal) -> EpisodeView:
    return EpisodeView(
        number=place,
        starts=one.start,
        ends=one.end,
        units=_plain(one.units),
        amount=_plain(amount),
        entries=one.entries or None,
        count=one.count,
        earlier=one.earlier,
    )


def _entry(found: PoolExplained, one: Charged) -> LineEntryView:
    entry, pool_id = one.entry, found.pool_id
    undoes = entry.undoes
    return LineEntryView(
        sequence=entry.sequence,
        id=encode_numbered(Prefix.DRAW, pool_id, entry.operation),
        reason=entry.reason,
        time=entry.time,
        units=_plain(entry.units),
        amount=_plain(one.amount),
        episode=one.episode,
        subject=entry.subject,
        allotment=entry.allotment,
        key=entry.key,
        undoes=None if undoes is None else encode_numbered(Prefix.DRAW, pool_id, undoes),
        used_at=entry.used_at,
    )


def _plain(value: Decimal) -> Decimal:
    found = number(value)
    assert found is not None
    return found
