"""Ask for a use by what it is, not by units: the pool's rate card says what the event costs.

The units and the usage event are one commit: the event carries the id of its draw (`fareboxdraw`),
so that it is metered like any other and does not burn the pool again.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2b
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.access.id import Prefix, encode_numbered
from farebox.catalog.number import plain_text
from farebox.catalog.plain_json import encode
from farebox.catalog.price import Price
from farebox.catalog.resolve import in_force
from farebox.events.admit import Admitted, admit
from farebox.events.answer import Outcome
from farebox.events.event import Event, Json
from farebox.events.refusal import Rejection
from farebox.flows.burn_targets import may_burn, serving_pools
from farebox.flows.decide_pools import Asked, decide_locked
from farebox.flows.ingest import ingest_in
from farebox.flows.load_book import meter_versions
from farebox.flows.load_prices import aliases_of, card_histories
from farebox.flows.serve_children import is_served, not_served
from farebox.ledger.command import Answer, Command, Draw, Reserve, Settle
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.metering.book import MeterBook
from farebox.metering.kind import Filed
from farebox.metering.reading import ReadingRefusal, meter_dimensions
from farebox.money.rounding import exact_sum
from farebox.postgres import catalog, stream
from farebox.postgres.burn import closed_pools
from farebox.postgres.catalog import Kind
from farebox.postgres.event_row import Prepared, prepare
from farebox.postgres.explain import customer_at
from farebox.postgres.pool import find_pool, find_rate_card
from farebox.rating.credit import credits_of
from farebox.rating.rated import UnpricedReason
from farebox.rating.usage import Usage

SOURCE = "farebox/uses"
_LAST_NUMBER = 10**18 - 1


class UseCode(StrEnum):
    """Why a use has no price in a pool's unit, in order of precedence."""

    POOL_WITHOUT_RATE_CARD = "pool_without_rate_card"
    EVENT_NOT_METERED = "event_not_metered"
    EVENT_UNREADABLE = "event_unreadable"
    EVENT_UNPRICED = "event_unpriced"


class UseRefusal(Struct, frozen=True):
    """A use that cannot be priced, or is not this pool's to pay for; nothing moved."""

    code: StrEnum
    detail: str


class UsePart(Struct, frozen=True):
    """What one reading of the event costs."""

    meter: str
    dimensions: Mapping[str, str]
    quantity: Decimal
    units: Decimal


class PricedUse(Struct, frozen=True):
    """What a use costs, and the answer of the pool."""

    units: Decimal
    parts: tuple[UsePart, ...]
    answer: Answer | Refusal


class Wanted(Struct, frozen=True, kw_only=True):
    """A use that is asked for.

    customer: who uses it; none says that it is nobody's but the subject's, whose ever that is.
    seconds: hold it so long. settle: the hold that it settles.
    """

    type: str
    data: Json
    subject: str | None
    customer: str | None = None
    allotment: str | None = None
    key: str | None = None
    digest: str | None = None
    hold: bool = False
    seconds: int | None = None
    settle: int | None = None


Names = Mapping[tuple[str, int], tuple[str, ...]]
"""The dimensions of each version of a meter."""


class _Priced(Struct, frozen=True):
    units: Decimal
    parts: tuple[UsePart, ...]


def use_priced(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    wanted: Wanted,
    now: datetime,
) -> PricedUse | UseRefusal:
    """Price a use, ask the pool for it, and write its event where units were used for good.

    A hold writes no event: what is settled does. The caller's transaction commits all of it.
    """
    head = stream.lock_head(connection, organization_id)
    meters = meter_versions(catalog.versions(connection, organization_id, Kind.METER))
    book = MeterBook(organization_id.bytes, head.catalog_revision, meters)
    names = {(one.meter.key, one.version): meter_dimensions(one.meter) for one in meters}
    priced = _price(connection, organization_id, pool_id, book, names, wanted, now)
    if isinstance(priced, UseRefusal):
        return priced
    # With an id as long as it can get, so that what is decided can be written.
    longest = encode_numbered(Prefix.DRAW, pool_id, _LAST_NUMBER)
    event = _event(wanted, longest, longest, now)
    if isinstance(wrong := admit(0, event, organization_id.bytes, now), Rejection):
        return UseRefusal(wrong.code, wrong.message)
    outcome: Answer | Refusal | None = _nothing_to_take(wanted, priced.units)
    if outcome is None:
        asked = [Asked(pool_id, _command(wanted, priced))]
        (outcome,), _ = decide_locked(connection, organization_id, asked, now)
    if isinstance(outcome, Answer) and not outcome.repeated and not wanted.hold:
        outcome = _write_event(
            connection, organization_id, pool_id, book, wanted, outcome, head.last_sequence
        )
    return PricedUse(priced.units, priced.parts, outcome)


def try_use(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    wanted: Wanted,
    now: datetime,
) -> PricedUse | UseRefusal:
    """Answer as `use_priced` would under a new key, and take all of it back.

    What came to be and is gone has no number.
    """
    wanted = msgspec.structs.replace(wanted, key=None, digest=None)
    with connection.transaction(force_rollback=True):
        done = use_priced(connection, organization_id, pool_id, wanted, now)
    if isinstance(done, UseRefusal) or isinstance(done.answer, Refusal):
        return done
    answer = msgspec.structs.replace(done.answer, operation=0, hold=None)
    return msgspec.structs.replace(done, answer=answer)


def _nothing_to_take(wanted: Wanted, units: Decimal) -> Refusal | None:
    """Refuse what would put units into a pool, and to hold none. What is free may be used."""
    if units > 0 or (units == 0 and not wanted.hold):
        return None
    detail = f"it comes to {plain_text(units)} units, and only what is above zero is taken"
    return Refusal(RefusalCode.AMOUNT_INVALID, detail)


def _command(wanted: Wanted, priced: _Priced) -> Command:
    note = encode(priced.parts).decode()
    if wanted.settle is not None:
        return Settle(
            hold=wanted.settle,
            amount=priced.units,
            key=wanted.key,
            digest=wanted.digest,
            note=note,
        )
    if wanted.hold:
        return Reserve(
            amount=priced.units,
            seconds=wanted.seconds,
            subject=wanted.subject,
            allotment=wanted.allotment,
            key=wanted.key,
            digest=wanted.digest,
            note=note,
        )
    return Draw(
        amount=priced.units,
        subject=wanted.subject,
        allotment=wanted.allotment,
        key=wanted.key,
        digest=wanted.digest,
        note=note,
    )


def _price(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    book: MeterBook,
    names: Names,
    wanted: Wanted,
    now: datetime,
) -> _Priced | UseRefusal:
    key = find_rate_card(connection, organization_id, pool_id)
    if key is None:
        detail = "the pool names no rate card, so it cannot say what a use costs"
        return UseRefusal(UseCode.POOL_WITHOUT_RATE_CARD, detail)
    filed = book.read(wanted.data, wanted.type, SOURCE, wanted.subject, now)
    if filed is None:
        detail = f"no meter reads events of type {wanted.type[:100]!r}"
        return UseRefusal(UseCode.EVENT_NOT_METERED, detail)
    if isinstance(filed, ReadingRefusal):
        detail = f"meter {filed.meter} cannot read its {filed.field} by {filed.path!r}"
        return UseRefusal(UseCode.EVENT_UNREADABLE, detail)
    history = card_histories(connection, organization_id, key)
    version = in_force(history.get(key, ()), now)
    prices = {} if version is None else {one.meter: one.price for one in version.card.rates}
    rated = [one for one in filed if one.series.meter_key in prices]
    if not rated:
        detail = f"rate card {key} has no rate for what was used"
        return UseRefusal(UseCode.EVENT_UNPRICED, detail)
    aliases = aliases_of(connection, organization_id)
    parts = []
    for one in rated:
        part = _part(one, prices[one.series.meter_key], names, aliases)
        if part is None:
            detail = f"rate card {key} has no rate for this use of {one.series.meter_key}"
            return UseRefusal(UseCode.EVENT_UNPRICED, detail)
        parts.append(part)
    refusal = _not_served(connection, organization_id, pool_id, wanted.customer, rated, now)
    return refusal or _Priced(exact_sum([part.units for part in parts]), tuple(parts))


def _not_served(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    customer: str | None,
    rated: Sequence[Filed],
    now: datetime,
) -> UseRefusal | None:
    """Refuse what is used for a customer whom the pool does not serve: its bill charges it too."""
    pool = find_pool(connection, organization_id, pool_id=pool_id)
    assert pool is not None, "it has a rate card"
    if customer is not None and not is_served(connection, organization_id, pool, customer, now):
        return UseRefusal(RefusalCode.SUBJECT_NOT_SERVED, not_served(pool, customer).detail)
    closed = closed_pools(connection, organization_id, [pool_id])
    for one in rated:
        series = one.series
        owner = series.customer or customer_at(connection, organization_id, series.subject, now)
        if owner is not None and customer not in (None, owner):
            detail = f"this use counts for another customer than {customer[:150]!r}"
            return UseRefusal(RefusalCode.SUBJECT_NOT_SERVED, detail)
        if owner is None or owner == pool.customer:
            continue
        if closed and is_served(connection, organization_id, pool, owner, now):
            continue  # usage burns it no more; what is asked of it is for the pool to refuse
        serving = serving_pools(connection, organization_id, [owner])
        keys = {some.rate_card for some in serving.pools if some.pool_id == pool_id}
        cards = {key: card_histories(connection, organization_id, key)[key] for key in keys}
        if not may_burn(serving, cards, pool_id, (owner, series.meter_key), now):
            # Whose it is stays unsaid: the key that asks may be one that sees only this pool.
            detail = f"this use counts for a customer whom pool {pool.key!r} does not serve"
            return UseRefusal(RefusalCode.SUBJECT_NOT_SERVED, detail)
    return None


def _part(
    one: Filed,
    price: Price,
    names: Names,
    aliases: Mapping[tuple[str, str], str],
) -> UsePart | None:
    series = one.series
    keys = names[series.meter_key, series.meter_version]
    dimensions = dict(zip(keys, series.dimensions, strict=True))
    quantity = Decimal(str(one.value))
    usage = Usage(quantity=quantity, dimensions=dimensions, events=1)
    units = credits_of(price, usage, aliases)
    if isinstance(units, UnpricedReason):
        return None
    return UsePart(series.meter_key, dimensions, quantity, units)


def _write_event(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    book: MeterBook,
    wanted: Wanted,
    answer: Answer,
    after: int,
) -> Answer | Refusal:
    """Append the usage event of a draw; it names the draw, and so burns nothing again.

    What costs nothing is no draw, and the ledger does not know its key: its event is called by the
    key instead, so that asking again finds it. after: the last sequence of the stream.
    """
    draw = encode_numbered(Prefix.DRAW, pool_id, answer.operation)
    if answer.operation:
        event = _event(wanted, draw, draw, answer.time)
    else:
        key = str(after + 1)
        if wanted.key is not None:
            key = blake2b(wanted.key.encode(), digest_size=16).hexdigest()
        event = _event(wanted, f"{draw}_{key}", draw, None)
    admitted = admit(0, event, organization_id.bytes, answer.time)
    assert not isinstance(admitted, Rejection), admitted
    assert isinstance(admitted, Admitted)
    prepared = prepare(book, admitted)
    assert isinstance(prepared, Prepared), "the event was read before it was priced"
    done = ingest_in(
        connection,
        organization_id,
        [prepared],
        book.revision,
        answer.time,
        set(),
        own_draws=True,
    )
    match done.outcomes[0]:
        case Outcome.DUPLICATE:
            return msgspec.structs.replace(answer, repeated=True)
        case Outcome.CONFLICT:
            detail = f"the key {wanted.key!r} was used for another request; take a new one"
            return Refusal(RefusalCode.IDEMPOTENCY_KEY_REUSED, detail)
        case outcome:
            assert outcome is Outcome.ACCEPTED, outcome
            return answer


def _event(wanted: Wanted, name: str, draw: str, time: datetime | None) -> Event:
    return Event(
        id=name,
        source=SOURCE,
        type=wanted.type,
        subject=wanted.subject,
        time=time,
        data=wanted.data,
        extensions={"fareboxdraw": draw},
    )
