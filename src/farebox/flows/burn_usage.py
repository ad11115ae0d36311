"""Usage events burn the pools of their customers, each once, close behind the stream.

A step takes the events after the watermark, rates what they come to by the pool's card in force at
the time of use, draws it from the pools and moves the watermark, in one transaction. What was used
was used: a draw of this kind is not refused, what no grant covers goes by the pool's limit, and
what is beyond every limit into overage.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.catalog.plain_json import encode
from farebox.catalog.resolve import CardVersion, in_force
from farebox.flows.burn_targets import Serving, burn_targets, card_at, edges_of, serving_pools
from farebox.flows.decide_pools import Asked, decide_locked
from farebox.flows.rate_periods import Terms, read_terms
from farebox.ledger.command import Draw
from farebox.ledger.refusal import Refusal
from farebox.metering.reading import meter_dimensions
from farebox.money.rounding import exact_sum
from farebox.postgres import burn, stream
from farebox.postgres.burn import Unburned, Use
from farebox.postgres.session import Pool, transaction
from farebox.rating.credit import credits_of
from farebox.rating.rated import UnpricedReason
from farebox.rating.usage import Usage, resolve_aliases

EVENTS_A_STEP = 20_000
BELOW_ZERO = "below_zero"
"""Why usage of less than nothing burns nothing: no draw is known that it takes back."""
_ENCODER = msgspec.json.Encoder(order="deterministic")


class Part(Struct, frozen=True, omit_defaults=True):
    """What one subject's use of one meter burned; below zero: what had burned and is not used.

    first_time, last_time: of its events. priced_as: dimension values by which it was rated, where
    an alias replaced those that were reported.
    """

    meter: str
    dimensions: Mapping[str, str]
    quantity: Decimal
    events: int
    units: Decimal
    rate_card: str
    version: int
    meter_version: int
    first_time: datetime
    last_time: datetime
    priced_as: Mapping[str, str] = {}


class BurnNote(Struct, frozen=True):
    """What such a draw was made for, kept with it: events of a range of the stream."""

    first_sequence: int
    last_sequence: int
    uses: Sequence[Part]


def burn_usage(
    pool: Pool, organization_id: UUID, now: datetime, *, up_to: int | None = None
) -> int:
    """Burn one step and return how many events it took.

    Zero where there is nothing to do, or another process is at it.
    """
    with transaction(pool, organization_id) as connection:
        after = burn.lock_watermark(connection, organization_id)
        if after is None:
            return 0
        last = stream.read_head(connection, organization_id).last_sequence
        to = min(last if up_to is None else min(last, up_to), after + EVENTS_A_STEP)
        if to <= after:
            return 0
        customers = burn.read_step(connection, organization_id, after, to)
        burn_readings(connection, organization_id, customers, now)
        burn.set_watermark(connection, organization_id, to)
        return to - after


class RatedUses(Struct, frozen=True):
    """What uses take from pools, by pool and subject, and those that nothing rates."""

    parts: Mapping[tuple[UUID, str], Sequence[tuple[Use, Part]]]
    missing: Sequence[Unburned]

    def units(self) -> dict[UUID, Decimal]:
        """Return by pool what it will be asked for."""
        units: dict[UUID, Decimal] = defaultdict(Decimal)
        for (pool_id, subject), used in self.parts.items():
            amount = _draw(subject, used).amount
            if amount > 0:
                units[pool_id] = exact_sum([units[pool_id], amount])
        return units


def burn_readings(
    connection: Connection, organization_id: UUID, customers: Sequence[str], now: datetime
) -> None:
    """Burn the readings that were set aside, which are of these customers."""
    pools = serving_pools(connection, organization_id, customers)
    if pools.pools:
        terms = read_terms(connection, organization_id)
        draw_uses(connection, organization_id, rate_uses(connection, pools, terms), now)


def rate_uses(connection: Connection, pools: Serving, terms: Terms) -> RatedUses:
    """Rate the readings that were set aside, which are of customers that these pools serve."""
    edges = edges_of(pools.pools, terms.cards)
    targets = burn_targets(pools, terms.cards)
    parts: dict[tuple[UUID, str], list[tuple[Use, Part]]] = defaultdict(list)
    missing: list[Unburned] = []
    for use in burn.uses(connection, targets, edges):
        card = card_at(pools.pools, use.pool_id, use.first_time)
        rated = _rate(terms, terms.cards.get(card, ()), use)
        if isinstance(rated, Unburned):
            missing.append(rated)
        elif use.below_zero:
            missing.append(_missing(use, rated.dimensions, BELOW_ZERO))
        elif rated.units:
            parts[use.pool_id, use.subject].append((use, rated))
    return RatedUses(parts, missing)


def draw_uses(
    connection: Connection, organization_id: UUID, rated: RatedUses, now: datetime
) -> None:
    """Take from each pool what was used of it; where that is less than has burned, nothing."""
    parts, missing = rated.parts, list(rated.missing)
    draws = {place: _draw(place[1], parts[place]) for place in sorted(parts)}
    asked = [Asked(pool_id, one) for (pool_id, _), one in draws.items() if one.amount > 0]
    if asked:
        outcomes, _ = decide_locked(connection, organization_id, asked, now)
        for one, outcome in zip(asked, outcomes, strict=True):
            if isinstance(outcome, Refusal):
                used = parts[one.pool_id, one.command.subject or ""]
                missing += [_missing(use, part.dimensions, outcome.code) for use, part in used]
    burn.add_unburned(connection, organization_id, missing)


def _rate(terms: Terms, history: Sequence[CardVersion], use: Use) -> Part | Unburned:
    """Return how many units a use burns by the version in force then, rounded to 18 decimals."""
    names = meter_dimensions(terms.meters[use.meter].versions[use.meter_version])
    dimensions = {
        name: value for name, value in zip(names, use.dimensions, strict=True) if value is not None
    }
    version = in_force(history, use.first_time)
    rates = () if version is None else version.card.rates
    price = next((one.price for one in rates if one.meter == use.meter), None)
    usage = Usage(quantity=use.quantity, dimensions=dimensions, events=use.events)
    units = credits_of(price, usage, terms.aliases)
    if isinstance(units, UnpricedReason):
        return _missing(use, dimensions, units)
    assert version is not None, "what has a price has it from a version"
    (priced,) = resolve_aliases([usage], terms.aliases)
    return Part(
        meter=use.meter,
        dimensions=dimensions,
        quantity=use.quantity,
        events=use.events,
        units=units,
        rate_card=version.card.key,
        version=version.version,
        meter_version=use.meter_version,
        first_time=use.first_time,
        last_time=use.last_time,
        priced_as={name: priced.dimensions[name] for name in priced.original},
    )


def _missing(use: Use, dimensions: Mapping[str, str], reason: str) -> Unburned:
    return Unburned(use, _ENCODER.encode(dimensions).decode(), str(reason))


def _draw(subject: str, used: Sequence[tuple[Use, Part]]) -> Draw:
    note = BurnNote(
        min(use.first_sequence for use, _ in used),
        max(use.last_sequence for use, _ in used),
        [part for _, part in used],
    )
    return Draw(
        amount=exact_sum([part.units for _, part in used]),
        subject=subject or None,
        forced=True,
        used_at=max(use.last_time for use, _ in used),
        note=encode(note).decode(),
    )
