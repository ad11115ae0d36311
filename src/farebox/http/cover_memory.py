"""What would cover a use that was refused; what is sold is remembered for a few seconds."""

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from msgspec import Struct

from farebox.catalog.cover import Cover, cheapest
from farebox.flows.resolve_feature import Offers, is_overridden, offers_of
from farebox.ledger.book import Book
from farebox.ledger.lack import WANTS_UNITS, Lack, lack_of
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.money.rounding import exact
from farebox.postgres.session import Pool, transaction

REMEMBERED_SECONDS = 5
"""So long what was changed of plans and entitlements may still be answered as it was."""
REMEMBERED_MAX = 100_000

HELPED = WANTS_UNITS | {RefusalCode.FEATURE_NOT_ENTITLED}
"""Refusals that something to buy would help against; `WANTS_UNITS` says why not the others."""


class Use(Struct, frozen=True, kw_only=True):
    """What was refused, and to whom. feature: none for a pool that no entitlement brought.

    borrow: whether units beyond the grants would have done.
    """

    feature: str | None
    customer: str | None
    subject: str | None = None
    allotment: str | None = None
    amount: Decimal
    borrow: bool = True


class Sold(Struct, frozen=True):
    """What is sold of a feature, and whether an override keeps plans from changing anything."""

    offers: Offers | None
    overridden: bool


Offered = tuple[datetime, Offers | None]


class CoverMemory:
    """What is sold of each feature, as it was read last; one for each process, for any thread."""

    def __init__(self) -> None:
        self._offers: dict[tuple[UUID, str], Offered] = {}
        self._overridden: dict[tuple[object, ...], tuple[datetime, bool]] = {}

    def sold(self, organization_id: UUID, use: Use, now: datetime) -> Sold | None:
        """Return what is remembered, none where some of it has to be read."""
        assert use.feature is not None
        offers = self._offers.get((organization_id, use.feature))
        if offers is None or not is_fresh(offers[0], now):
            return None
        if offers[1] is None:
            return Sold(None, False)
        overridden = self._overridden.get(_whose(organization_id, use))
        if overridden is None or not is_fresh(overridden[0], now):
            return None
        return Sold(offers[1], overridden[1])

    def unreadable(self, organization_id: UUID, use: Use, now: datetime) -> None:
        """Remember that it cannot be read, so that not each of many has to find that out."""
        assert use.feature is not None
        self._offers[organization_id, use.feature] = now, None

    def read(self, pool: Pool, organization_id: UUID, use: Use, now: datetime) -> Sold:
        """Return what is sold now; what is not remembered is read."""
        feature = use.feature
        assert feature is not None
        found = self.sold(organization_id, use, now)
        if found is not None:
            return found
        offers = self._offers.get((organization_id, feature))
        with transaction(pool, organization_id) as connection:
            if offers is None or not is_fresh(offers[0], now):
                offers = now, offers_of(connection, organization_id, feature)
            overridden = is_overridden(
                connection, organization_id, feature, use.customer, use.subject, now
            )
        for memory in (self._offers, self._overridden):
            if len(memory) > REMEMBERED_MAX:
                memory.clear()
        self._offers[organization_id, feature] = offers
        self._overridden[_whose(organization_id, use)] = now, overridden
        return Sold(offers[1], overridden)


def _whose(organization_id: UUID, use: Use) -> tuple[object, ...]:
    subject = use.subject if use.customer is None else None
    return organization_id, use.feature, use.customer, subject


def is_helped(refusal: Refusal, use: Use) -> bool:
    """Whether something to buy might help."""
    return use.feature is not None and refusal.code in HELPED


def covers_of(sold: Sold, refusal: Refusal, use: Use, book: Book | None) -> list[Cover]:
    """Return the cheapest top-up and plan that would cover; book: of the pool that refused."""
    if sold.offers is None:
        return []
    feature, plans = sold.offers.feature, sold.offers.plans
    plain = refusal.code is RefusalCode.FEATURE_NOT_ENTITLED
    with exact():
        if plain:
            lack: Lack | None = Lack(None, use.amount)  # units alone entitle to nothing
        elif book is None:
            lack = Lack(max(Decimal(0), use.amount - (refusal.left or 0)), use.amount)
        else:
            lack = lack_of(book, refusal, use.amount, use.subject, use.allotment, borrow=use.borrow)
        if lack is None:
            return []
        return cheapest(
            feature,
            plans,
            missing=lack.missing,
            # An override goes before all plans, so that another one would change nothing.
            needed=None if sold.overridden else lack.needed,
            currency=None if book is None else book.pool.policy.currency,
            plain=plain,
        )


def is_fresh(read_at: datetime, now: datetime) -> bool:
    # A clock that was set back must not make an answer last.
    return timedelta(0) <= now - read_at < timedelta(seconds=REMEMBERED_SECONDS)
