"""Holds: units set aside for a while, to be settled for what was really used or given back."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from msgspec import Struct

from farebox.ledger.account import Account


class HoldStatus(StrEnum):
    """Whether a hold still sets units aside, and if not, how it ended."""

    OPEN = "open"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


class Slice(Struct, frozen=True, array_like=True):
    """Units taken from one account; `grant` is the number of the grant where it is one.

    price: of a unit, where they come from overage or burst and have one.
    """

    account: Account
    amount: Decimal
    grant: int | None = None
    price: Decimal | None = None


class Hold(Struct, kw_only=True):
    """A hold as it stands; `number` is that of its first transfer in the pool.

    slices: what is held, in the order in which it was taken. settled: what it was settled for.
    """

    number: int
    amount: Decimal
    slices: tuple[Slice, ...]
    subject: str | None = None
    allotment: str | None = None
    held_at: datetime
    expires_at: datetime
    status: HoldStatus = HoldStatus.OPEN
    settled: Decimal | None = None
    closed_at: datetime | None = None
