"""Transfers: the entries of the ledger, never changed once written."""

from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from farebox.ledger.account import Account
from farebox.ledger.reason import Reason


class Cause(Struct):
    """What a group of transfers was made for; together they are one operation of the pool.

    number: the sequence of its first transfer, 0 before there is one. time: when it was decided.
    key, digest: of the request that asked for it, 32 hexadecimal digits. undoes: the number of the
    operation that this one takes back, settles or extends. note: JSON text for people.
    """

    time: datetime
    subject: str | None = None
    allotment: str | None = None
    key: str | None = None
    digest: str | None = None
    undoes: int | None = None
    used_at: datetime | None = None
    note: str | None = None
    number: int = 0


class Transfer(Struct):
    """`amount` units from `source` to `target`, both accounts of one pool.

    source_after, target_after: their balances once it is made; of a grant's account, those of that
    grant. available_after: what all grants of the pool have left. origin: of units that leave the
    held account or are taken back, the account that gave them. price: of a unit, where it has one.
    `sequence` orders all that happened in a pool.
    """

    sequence: int
    operation: int
    reason: Reason
    source: Account
    target: Account
    amount: Decimal
    source_after: Decimal
    target_after: Decimal
    available_after: Decimal
    time: datetime
    grant: int | None
    origin: Account | None
    subject: str | None
    allotment: str | None
    price: Decimal | None
    key: str | None
    digest: str | None
    undoes: int | None
    used_at: datetime | None
    note: str | None
