"""How full a pool is: against what its grants have, and had, to give in the period under way."""

from decimal import Decimal

from farebox.ledger.account import ZERO
from farebox.ledger.policy import Refill
from farebox.ledger.pool import Counters
from farebox.money.rounding import EXACT, exact_sum


def capacity_of(
    available: Decimal, overdraft: Decimal, counters: Counters, refill: Refill | None
) -> Decimal:
    """Return what is available and what was taken from grants in this period, together.

    Grants that are used up are in it, those that expired are not. overdraft: what is borrowed, as a
    positive number. A pool that units flow into holds at most its capacity, however much it gave.
    """
    if refill is not None:
        return refill.capacity
    beyond = exact_sum((counters.overage, counters.burst, overdraft))
    return EXACT.add(available, max(ZERO, EXACT.subtract(counters.used, beyond)))
