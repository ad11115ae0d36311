"""The accounts of a pool: between them every unit moves, and their balances sum to zero."""

from decimal import Decimal
from enum import StrEnum

ZERO = Decimal(0)


class Account(StrEnum):
    """Where units of a pool may be.

    Each pool has its own, so that no row is shared between pools. What comes out of `source`,
    `overdraft`, `overage` and `burst` leaves them below zero: so much was issued, was borrowed
    from the next grant, is owed at the overage price, is owed at the burst price.
    """

    SOURCE = "source"
    PENDING = "pending"
    GRANT = "grant"
    HELD = "held"
    USED = "used"
    OVERDRAFT = "overdraft"
    OVERAGE = "overage"
    BURST = "burst"
    EXPIRED = "expired"
    TRANSIT = "transit"


BEYOND = (Account.OVERDRAFT, Account.OVERAGE, Account.BURST)
"""The accounts that give what no grant covers."""

COVERED = (Account.GRANT, Account.SOURCE)
"""The accounts that give what is covered: a grant, or where nothing bounds a pool, the source."""

Balances = dict[Account, Decimal]


def no_balances() -> Balances:
    """Return the balances of a pool in which nothing has moved yet."""
    return dict.fromkeys(Account, ZERO)
