"""What may be asked of a pool, and what it answers."""

from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from farebox.ledger.account import ZERO, Account
from farebox.ledger.hold import Slice


class Request(Struct, frozen=True, kw_only=True):
    """What every command carries: who asks, and under which key.

    key, digest: the same key with the same digest (32 hexadecimal digits) moves units once.
    note: JSON text, kept with the operation. used_at: when it was used, where that was earlier.
    """

    subject: str | None = None
    allotment: str | None = None
    key: str | None = None
    digest: str | None = None
    used_at: datetime | None = None
    note: str | None = None


class Draw(Request, frozen=True, kw_only=True):
    """Take units for good. forced: they were used already, so no limit refuses them."""

    amount: Decimal
    unit: str | None = None
    forced: bool = False


class Reserve(Request, frozen=True, kw_only=True):
    """Hold units until `seconds` are over; none: as long as the pool's policy says."""

    amount: Decimal
    unit: str | None = None
    seconds: int | None = None


class Settle(Request, frozen=True, kw_only=True):
    """Take `amount` for good out of a hold: the rest goes back, what is missing is drawn."""

    hold: int
    amount: Decimal


class Extend(Request, frozen=True, kw_only=True):
    """Let a hold last `seconds` from now, and hold `amount` units more.

    It never ends earlier than before; without `seconds` it ends when it would have.
    """

    hold: int
    amount: Decimal = ZERO
    seconds: int | None = None


class Release(Request, frozen=True, kw_only=True):
    """Give back all that is held."""

    hold: int


class Reverse(Request, frozen=True, kw_only=True):
    """Take back a draw or what a hold was settled for; none: all that is left of it.

    taken: where the units came from, in the order in which they were taken. taken_at: when.
    forced: what they were taken for has been voided, so it is never too late.
    """

    operation: int
    taken: tuple[Slice, ...]
    taken_at: datetime
    taken_subject: str | None = None
    taken_allotment: str | None = None
    amount: Decimal | None = None
    forced: bool = False


Command = Draw | Reserve | Settle | Extend | Release | Reverse


class Answer(Struct, frozen=True, kw_only=True):
    """A yes: what was moved.

    operation: its number in the pool. amount: of the operation. covered: what grants gave; the
    rest by account in `beyond`. available: what all grants have left after it. over_limit: whether
    a soft limit was passed or units beyond every bound were taken.
    """

    operation: int
    time: datetime
    amount: Decimal
    covered: Decimal
    beyond: dict[Account, Decimal]
    available: Decimal
    over_limit: bool = False
    hold: int | None = None
    expires_at: datetime | None = None
    repeated: bool = False
