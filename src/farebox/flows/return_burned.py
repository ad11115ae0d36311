"""Usage that is voided gives back the units that it burned: each draw shrinks to what remains.

A draw was made for many events, and its note says in parts what they came to. A part is rated anew
without what is voided of it, by the version of the rate card and the names that rated it then, and
the draw gives back the difference. What a part burns depends on nothing but its quantity, so what
remains is what the remaining events would have burned, to the last digit, in however many undos
the others went; a share by quantity would have to be rounded each time. What was voided of a draw
before is kept for that (`draw_voided`).

A draw gives back what it has left at most, for part of it may have been taken back by hand; and it
takes nothing more where what is voided was below zero, until more than that is voided.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.catalog.plain_json import encode
from farebox.flows.burn_targets import burn_targets, serving_pools
from farebox.flows.burn_usage import BurnNote, Part
from farebox.flows.decide_pools import Asked, Round
from farebox.flows.rate_periods import Terms, read_terms
from farebox.flows.reverse_draw import left_of
from farebox.ledger.account import Account
from farebox.ledger.command import Answer, Reverse
from farebox.ledger.release import split_last
from farebox.metering.reading import meter_dimensions
from farebox.money.rounding import EXACT, exact, exact_sum
from farebox.postgres import burn
from farebox.postgres import burn_void as store
from farebox.postgres.book import Stated, find_grants, read_books
from farebox.postgres.burn_void import Voided, VoidedDraw
from farebox.postgres.posting import posted
from farebox.postgres.transfer import Entry, operations, undoing_each
from farebox.rating.credit import credits_of
from farebox.rating.rated import UnpricedReason
from farebox.rating.usage import Usage

_FIRST = (UUID(int=0), 0)


class VoidedUse(Struct, frozen=True):
    """What of a part was voided, and the units that the part came to less."""

    meter: str
    dimensions: Mapping[str, str]
    quantity: Decimal
    events: int
    units: Decimal


class ReturnNote(Struct, frozen=True):
    """What a reversal was made for, kept with it."""

    reason: str
    voided: Sequence[VoidedUse]


class _Return(Struct, frozen=True):
    """A draw as it stands once usage of it is voided, and its reversal; none: nothing goes back."""

    draw: VoidedDraw
    command: Reverse | None


def find_burned(connection: Connection, organization_id: UUID, import_id: UUID) -> Terms | None:
    """Find what events of an import burned, before they are voided; none: nothing.

    No step of burning goes on until the transaction ends: the next one passes over what is voided.
    """
    burned = burn.wait_for_watermark(connection, organization_id)
    if burned is None:
        return None
    customers = store.read_voided(connection, organization_id, import_id, burned)
    serving = serving_pools(connection, organization_id, customers)
    if not serving.pools:
        return None
    terms = read_terms(connection, organization_id)
    targets = burn_targets(serving, terms.cards)
    names = {
        (key, version): meter_dimensions(meter)
        for key, history in terms.meters.items()
        for version, meter in history.versions.items()
    }
    return terms if store.find_draws(connection, organization_id, targets, names) else None


def states_burned(connection: Connection, organization_id: UUID, terms: Terms) -> bool:
    """Whether a final invoice states units beyond the grants that would be given back."""
    spans: dict[UUID, list[range]] = defaultdict(list)
    for pool_id, first, end in store.invoiced_spans(connection, organization_id):
        spans[pool_id].append(range(first, end))
    if not spans:
        return False
    return any(
        one.command.operation in span
        for page in _pages(connection, organization_id)
        for one in _returns(connection, organization_id, terms, page, "")
        if one.command is not None and _is_charged(one.command)
        for span in spans[one.draw.pool_id]
    )


def _is_charged(command: Reverse) -> bool:
    assert command.amount is not None
    with exact():
        _, returned = split_last(command.taken, command.amount)
    beyond = (Account.OVERAGE, Account.BURST)
    return any(one.account in beyond and one.price is not None for one in returned)


def return_burned(
    connection: Connection, organization_id: UUID, terms: Terms, reason: str, now: datetime
) -> int:
    """Give back what was found, and return how many draws did; unburned usage shrinks likewise.

    Pools are locked in the order of their ids, some at a time, until the transaction ends.
    """
    store.shrink_unburned(connection, organization_id)
    draws = 0
    for page in _pages(connection, organization_id):
        pool_ids = sorted({one.pool_id for one in page})
        books = read_books(connection, organization_id, pool_ids, lock=True)
        returns = _returns(connection, organization_id, terms, page, reason)
        asked = [Asked(one.draw.pool_id, one.command) for one in returns if one.command]
        _take_back(connection, organization_id, books, asked, now)
        store.save_voided(connection, organization_id, [one.draw for one in returns])
        draws += len(asked)
    return draws


def _pages(connection: Connection, organization_id: UUID) -> Iterator[list[VoidedDraw]]:
    after = _FIRST
    while page := store.page_of_draws(connection, organization_id, after):
        yield page
        after = page[-1].pool_id, page[-1].operation


def _returns(
    connection: Connection,
    organization_id: UUID,
    terms: Terms,
    page: Sequence[VoidedDraw],
    reason: str,
) -> list[_Return]:
    """Return what each draw gives back."""
    wanted = [(one.pool_id, one.operation) for one in page]
    entries: dict[tuple[UUID, int], list[Entry]] = defaultdict(list)
    for entry in operations(connection, organization_id, wanted):
        entries[entry.pool_id, entry.operation].append(entry)
    undoing: dict[tuple[UUID, int], list[Entry]] = defaultdict(list)
    for entry in undoing_each(connection, organization_id, wanted):
        assert entry.undoes is not None
        undoing[entry.pool_id, entry.undoes].append(entry)
    return [
        _return(terms, one, entries[key], undoing.get(key, ()), reason)
        for key, one in zip(wanted, page, strict=True)
    ]


def _return(
    terms: Terms,
    draw: VoidedDraw,
    entries: Sequence[Entry],
    undoing: Sequence[Entry],
    reason: str,
) -> _Return:
    first = entries[0]
    assert first.note is not None, "a draw is found by its note"
    uses = msgspec.json.decode(first.note, type=BurnNote).uses
    voided = {
        place: _rated(terms, uses[place], draw.earlier.get(place, Voided()), part)
        for place, part in draw.parts.items()
    }
    so_far = {
        **draw.earlier,
        **{place: _sum(draw.earlier.get(place, Voided()), part) for place, part in voided.items()},
    }
    owed = exact_sum([one.units for one in so_far.values()])
    given = max(draw.given, owed)
    after = msgspec.structs.replace(draw, earlier=so_far, given=given)
    left = left_of(entries, undoing)
    most = exact_sum([one.amount for one in left])
    amount = min(most, EXACT.subtract(given, draw.given))
    if not amount:
        return _Return(after, None)
    note = ReturnNote(
        reason,
        [
            VoidedUse(
                uses[place].meter, uses[place].dimensions, one.quantity, one.events, one.units
            )
            for place, one in sorted(voided.items())
        ],
    )
    command = Reverse(
        operation=draw.operation,
        taken=left,
        taken_at=first.time,
        taken_subject=first.subject,
        taken_allotment=first.allotment,
        amount=amount,
        subject=first.subject,
        note=encode(note).decode(),
        forced=True,
    )
    return _Return(after, command)


def _rated(terms: Terms, part: Part, earlier: Voided, voided: Voided) -> Voided:
    """Return what is voided with its units: what the part came to, less what remains comes to."""
    gone = _sum(earlier, voided)
    events = part.events - gone.events
    quantity = EXACT.subtract(part.quantity, gone.quantity)
    remains = _units(terms, part, quantity) if events else Decimal(0)
    came_to = EXACT.subtract(part.units, earlier.units)
    return msgspec.structs.replace(voided, units=EXACT.subtract(came_to, remains))


def _sum(one: Voided, other: Voided) -> Voided:
    return Voided(
        EXACT.add(one.quantity, other.quantity),
        one.events + other.events,
        EXACT.add(one.units, other.units),
    )


def _units(terms: Terms, part: Part, quantity: Decimal) -> Decimal:
    """Rate a quantity as the part was rated, whatever the catalog says since."""
    (version,) = [one for one in terms.cards[part.rate_card] if one.version == part.version]
    price = next(one.price for one in version.card.rates if one.meter == part.meter)
    dimensions = {**part.dimensions, **part.priced_as}
    units = credits_of(price, Usage(quantity=quantity, dimensions=dimensions, events=1), {})
    assert not isinstance(units, UnpricedReason), "what burned had a price"
    return units


def _take_back(
    connection: Connection,
    organization_id: UUID,
    books: Mapping[UUID, Stated],
    asked: Sequence[Asked],
    now: datetime,
) -> None:
    """Reverse draws of pools that are locked; a pool ahead of the clock, at its own time."""
    _adopt_grants(connection, organization_id, books, asked)
    at: dict[datetime, list[Asked]] = defaultdict(list)
    for one in asked:
        at[max(now, books[one.pool_id].book.pool.as_of)].append(one)
    for time, some in at.items():
        decided = Round(books, some, time, {})
        for outcome in decided.outcomes:
            assert isinstance(outcome, Answer), outcome
        statement, parameters = decided.call(organization_id)
        done = posted(connection.execute(statement, parameters).fetchone())
        assert done, "nobody else changes a pool that is locked"


def _adopt_grants(
    connection: Connection,
    organization_id: UUID,
    books: Mapping[UUID, Stated],
    asked: Sequence[Asked],
) -> None:
    """Have the grants at hand that units return to, closed ones too."""
    closed: dict[UUID, set[int]] = defaultdict(set)
    for one in asked:
        assert isinstance(one.command, Reverse)
        for part in one.command.taken:
            if part.grant is not None and part.grant not in books[one.pool_id].book.grants:
                closed[one.pool_id].add(part.grant)
    for pool_id, numbers in closed.items():
        for grant in find_grants(connection, organization_id, pool_id, sorted(numbers)):
            books[pool_id].book.adopt(grant)
