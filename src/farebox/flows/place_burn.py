"""Which pool a reading burned, or would burn: by which rate card, how many units, in which draw.

What burned is read from the draws and from what is listed as unburned; the rest is rated as
`burn_usage` would rate it now.
"""

from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from psycopg import Connection

from farebox.access.id import Prefix, decode_numbered
from farebox.catalog.feature_card import is_charged, is_feature_card
from farebox.catalog.resolve import CardVersion, in_force
from farebox.flows.burn_targets import burn_targets, card_at, serving_pools
from farebox.flows.burn_usage import BELOW_ZERO, BurnNote, Part
from farebox.flows.rate_periods import Terms
from farebox.flows.reading_at import ReadingAt
from farebox.ledger.decide import SKEW
from farebox.postgres.burn import BurningPool
from farebox.postgres.burn_place import burned_up_to, metered_draws, unburned_reason
from farebox.postgres.draw_paid import draw_pays
from farebox.postgres.pool import find_pool
from farebox.rating.charge import RateCardVersion
from farebox.rating.credit import credits_of
from farebox.rating.rated import UnpricedReason
from farebox.rating.usage import Usage

_ENCODER = msgspec.json.Encoder(order="deterministic")


class BurnFate(StrEnum):
    """What becomes of usage that a pool pays for."""

    UNBURNED = "unburned"
    BURNS_POOL = "burns_pool"
    BURNED_POOL = "burned_pool"


class PoolPlace(Struct, frozen=True, kw_only=True):
    """The pool that a reading reaches.

    units: what the reading by itself takes from it. rate_card: the version that says so; none where
    no version of the card prices it, or where the pool is a feature's, which its meter uses up one
    for one. draw: the number of the operation, where it was found. reason: why it burned nothing.
    alone: whether no plan charges it besides; one may, where it only counts a feature that a plan
    charges, or where an event names a draw from a pool that its customer's usage does not burn.
    """

    fate: BurnFate
    pool_id: UUID
    pool: str
    units: Decimal | None = None
    rate_card: RateCardVersion | None = None
    draw: int | None = None
    reason: str | None = None
    alone: bool = True


class _Rated(Struct, frozen=True):
    units: Decimal | None
    rate_card: RateCardVersion | None
    reason: str | None


def place_burn(
    connection: Connection,
    organization_id: UUID,
    terms: Terms,
    customer: str,
    reading: ReadingAt,
) -> PoolPlace | None:
    """Return the pool that this use of a customer burns; none where it burns none."""
    if isinstance(reading.value, str):
        return None  # only what is counted or summed up burns
    serving = serving_pools(connection, organization_id, [customer])
    pool_id = next(
        (
            target[2]
            for target in burn_targets(serving, terms.cards)
            if target[1] == reading.meter and target[3] <= reading.time < target[4]
        ),
        None,
    )
    card = None if pool_id is None else card_at(serving.pools, pool_id, reading.time)
    alone = card is not None and not is_charged(card)
    drawn = _drawn(connection, organization_id, customer, reading)
    if drawn is not None:
        return replace(drawn, alone=alone)
    if card is None:
        return None
    pool = next(one for one in serving.pools if one.pool_id == pool_id)
    history = terms.cards.get(card, ())
    dealt_with = burned_up_to(connection, organization_id)
    if reading.sequence is not None and reading.sequence <= dealt_with:
        burned = _burned(connection, organization_id, terms, pool, history, reading)
        return replace(burned, alone=alone)
    rated = _rate(terms, in_force(history, reading.time), reading)
    return PoolPlace(
        fate=BurnFate.UNBURNED if rated.reason else BurnFate.BURNS_POOL,
        pool_id=pool.pool_id,
        pool=pool.key,
        units=rated.units,
        rate_card=rated.rate_card,
        reason=rated.reason,
        alone=alone,
    )


def _drawn(
    connection: Connection, organization_id: UUID, customer: str, reading: ReadingAt
) -> PoolPlace | None:
    """Return the pool of the draw that the event names and that paid for this reading."""
    named = None if reading.draw is None else decode_numbered(Prefix.DRAW, reading.draw)
    if named is None or reading.draw is None:
        return None
    pool_id, number = named
    pool = find_pool(connection, organization_id, pool_id=pool_id)
    if pool is None or not draw_pays(
        connection,
        organization_id,
        reading.draw,
        reading.sequence,
        customer,
        reading.subject,
        reading.time,
    ):
        return None
    return PoolPlace(fate=BurnFate.BURNED_POOL, pool_id=pool_id, pool=pool.key, draw=number)


def _burned(
    connection: Connection,
    organization_id: UUID,
    terms: Terms,
    pool: BurningPool,
    history: Sequence[CardVersion],
    reading: ReadingAt,
) -> PoolPlace:
    """Return what happened to an event that was dealt with: a version published since is not it."""
    assert reading.sequence is not None
    draws = metered_draws(
        connection,
        organization_id,
        pool.pool_id,
        reading.subject or None,
        reading.sequence,
        (reading.received_at or reading.time) - SKEW,
    )
    found = [
        (part, draw.operation)
        for draw in draws
        for part in msgspec.json.decode(draw.note, type=BurnNote).uses
        if _holds(part, reading)
    ]
    if found:
        part, operation = min(found, key=lambda one: one[0].last_time - one[0].first_time)
        rated = _rate_as(terms, part, reading)
        return PoolPlace(
            fate=BurnFate.BURNED_POOL,
            pool_id=pool.pool_id,
            pool=pool.key,
            units=rated.units,
            rate_card=rated.rate_card,
            draw=operation,
        )
    dimensions = _ENCODER.encode(dict(reading.dimensions)).decode()
    rated = _rate(terms, in_force(history, reading.time), reading)
    reason = rated.reason
    if reason != BELOW_ZERO:
        reason = unburned_reason(
            connection, organization_id, pool.pool_id, reading.meter, dimensions, reading.time
        )
    return PoolPlace(
        fate=BurnFate.BURNED_POOL if reason is None else BurnFate.UNBURNED,
        pool_id=pool.pool_id,
        pool=pool.key,
        units=None if reason else rated.units,
        rate_card=None if reason else rated.rate_card,
        reason=reason,
    )


def _holds(part: Part, reading: ReadingAt) -> bool:
    """Tell whether a reading may be in a part; of several, the one that is closest around it is."""
    assert isinstance(reading.value, Decimal)
    return (
        reading.value >= 0
        and part.meter == reading.meter
        and dict(part.dimensions) == dict(reading.dimensions)
        and part.first_time <= reading.time <= part.last_time
        and part.events > 0
    )


def _rate_as(terms: Terms, part: Part, reading: ReadingAt) -> _Rated:
    """Rate a reading as its part was rated, whatever the catalog says since."""
    history = terms.cards.get(part.rate_card, ())
    version = next((one for one in history if one.version == part.version), None)
    priced_as = {**reading.dimensions, **part.priced_as}
    return _rate(replace(terms, aliases={}), version, replace(reading, dimensions=priced_as))


def _rate(terms: Terms, version: CardVersion | None, reading: ReadingAt) -> _Rated:
    """Rate one reading by itself: the prices of such cards are in proportion to what is used."""
    assert isinstance(reading.value, Decimal)
    rates = () if version is None else version.card.rates
    price = next((one.price for one in rates if one.meter == reading.meter), None)
    usage = Usage(quantity=reading.value, dimensions=reading.dimensions, events=1)
    units = credits_of(price, usage, terms.aliases)
    card = None
    if version is not None and not is_feature_card(version.card.key):
        card = RateCardVersion(version.card.key, version.version)
    if isinstance(units, UnpricedReason):
        return _Rated(None, card, str(units))
    if reading.value < 0:
        return _Rated(None, card, BELOW_ZERO)
    return _Rated(units, card, None)
