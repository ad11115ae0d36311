"""Grants: units that came into a pool at once, with what they cost and how long they last."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from msgspec import Struct

from farebox.ledger.account import ZERO
from farebox.ledger.policy import BURN_ORDER, BurnBy, Renewal
from farebox.money.rounding import QUANTITY_DECIMALS, round_to
from farebox.period.instant import END


class Basis(StrEnum):
    """How the units were come by; what was paid is revenue to be recognized."""

    PURCHASED = "purchased"
    PROMOTIONAL = "promotional"
    INCLUDED = "included"
    ROLLED_OVER = "rolled_over"
    MOVED = "moved"
    REFILL = "refill"
    RETURNED = "returned"


class GrantStatus(StrEnum):
    """Where a grant stands.

    pending: bought, not paid. scheduled: not in force yet. active: its units may be taken.
    closed: nothing of it is left, neither available nor held. voided: taken back; what is held of
    it, and what of it comes back later, is taken back too.
    """

    PENDING = "pending"
    SCHEDULED = "scheduled"
    ACTIVE = "active"
    CLOSED = "closed"
    VOIDED = "voided"


ENDED = (GrantStatus.CLOSED, GrantStatus.VOIDED)
"""Where nothing happens to a grant by itself any more."""


class Grant(Struct, kw_only=True):
    """A grant as it stands; `number` is that of its first transfer in the pool.

    available and held: what is left of `amount`. expires_at: exclusive, none: never. cost: what was
    paid for all of it, in the pool's currency. pay_by: when an unpaid one falls back.
    recurrence: the number of the recurrence that issued it.
    """

    number: int
    key: str | None = None
    amount: Decimal
    available: Decimal = ZERO
    held: Decimal = ZERO
    status: GrantStatus = GrantStatus.ACTIVE
    basis: Basis = Basis.PROMOTIONAL
    priority: int = 0
    issued_at: datetime
    effective_at: datetime
    expires_at: datetime | None = None
    cost: Decimal | None = None
    on_invoice: bool = False
    pay_by: datetime | None = None
    recurrence: int | None = None
    metadata: dict[str, str] = {}


class Rollover(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of a period's units is kept at its end: `percent` of the rest, at most `units`.

    seconds: how long what is kept lasts; none: as long as the next period. It is kept once.
    """

    percent: Decimal = Decimal(100)
    units: Decimal | None = None
    seconds: int | None = None


class Recurrence(Struct, kw_only=True):
    """A grant that comes anew each period and expires at its end.

    index: of the next period. next_at: when it begins, none when there is no further one.
    grant: the number of the running period's grant. prorated: a short first period gets its share.
    rolled: the numbers of grants of what was kept, and when they expire where it does not end.
    """

    number: int
    key: str
    amount: Decimal
    priority: int = 0
    basis: Basis = Basis.INCLUDED
    cost: Decimal | None = None
    renewal: Renewal = Renewal()
    timezone: str = "UTC"
    starts_at: datetime
    ends_at: datetime | None = None
    rollover: Rollover | None = None
    prorated: bool = False
    index: int = 0
    next_at: datetime | None = None
    grant: int | None = None
    rolled: tuple[tuple[int, datetime], ...] = ()


BurnKey = tuple[object, ...]


def burn_key(grant: Grant, order: tuple[BurnBy, ...] = BURN_ORDER) -> BurnKey:
    """Return what grants of a pool are sorted by; the lowest is taken first.

    Of grants equal in all that the order names, the one issued first is taken first.
    """
    values: list[object] = []
    for by in order:
        match by:
            case BurnBy.PRIORITY:
                values.append(grant.priority)
            case BurnBy.EXPIRY:
                values.append(grant.expires_at or END)
            case BurnBy.AGE:
                values.append(grant.issued_at)
    return (*values, grant.issued_at, grant.number)


def cost_of_part(cost: Decimal, amount: Decimal, part: Decimal) -> Decimal:
    """Return what `part` units of a grant of `amount` cost, rounded half up to 18 decimals."""
    return round_to(Fraction(cost) * Fraction(part) / Fraction(amount), QUANTITY_DECIMALS)
