"""How full a pool is: against what its grants have, and had, to give in the period under way."""

from decimal import Decimal

from farebox.ledger.policy import Refill
from farebox.ledger.pool import Counters
from farebox.ledger.pool import capacity_of as capacity_of_grants


def capacity_of(
    available: Decimal, overdraft: Decimal, counters: Counters, refill: Refill | None
) -> Decimal:
    """Return how many units a pool has, or had, to give in the period under way.

    A pool that units flow into holds at most its capacity, however much it gave.
    """
    if refill is not None:
        return refill.capacity
    return capacity_of_grants(available, overdraft, counters)
