"""A pool as it stands: what it allows, what its accounts hold, what it counts in a period."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from msgspec import Struct, field, structs

from farebox.ledger.account import ZERO, Account, Balances, no_balances
from farebox.ledger.license import LicenseTerm
from farebox.ledger.policy import Limit, Policy, Renewal
from farebox.money.rounding import EXACT, exact_sum
from farebox.period.cycle import Cycle


class PoolStatus(StrEnum):
    """Whether units may be taken from a pool."""

    OPEN = "open"
    CLOSED = "closed"


class PoolDefinition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pool as it is asked for.

    unit: what it holds, by any name, or an ISO 4217 code for money. customer: who it belongs to.
    license: of that customer, whose pool it is: units may be taken while that is in force.
    subject: the only one that may take from it, where it is one's own. subscription: of the
    customer; on its invoices stands what the pool costs. timezone: of its periods; none takes the
    customer's. rate_card: in the pool's unit; usage events of the customer burn the pool by its
    rates, from when the pool names it. closed: nothing may be taken any more.
    serves_children: whether it serves the customers below its own too.
    """

    key: str
    name: str = ""
    unit: str
    customer: str | None = None
    license: str | None = None
    subject: str | None = None
    subscription: str | None = None
    timezone: str | None = None
    policy: Policy = Policy()
    rate_card: str | None = None
    closed: bool = False
    serves_children: bool = False
    metadata: Mapping[str, str] = {}


class Counters(Struct, kw_only=True):
    """What a pool counts; all but the refill start anew with each period.

    overage, burst: units beyond the grants that were taken in this period, held ones included.
    spend: what those cost. unlimited: units that were taken while nothing bounded the pool, which
    no grant gave. granted: units that came. used: units taken or held by anybody.
    top_ups: how many were bought. topped_up_at: when the last one was, in whatever period.
    refilled_at, refilled: since when, and how much of what flowed in since, is in the pool.
    """

    period: int = -1
    period_start: datetime | None = None
    period_end: datetime | None = None
    overage: Decimal = ZERO
    burst: Decimal = ZERO
    unlimited: Decimal = ZERO
    spend: Decimal = ZERO
    used: Decimal = ZERO
    top_ups: int = 0
    topped_up_at: datetime | None = None
    refilled_at: datetime | None = None
    refilled: Decimal = ZERO
    refill_grant: int | None = None


class Terms(Struct, frozen=True, kw_only=True):
    """What of a policy changes by itself at an instant, for a plan begins or ends then.

    anew: whether a period begins then, whatever its length.
    """

    at: datetime
    limit: Limit
    currency: str | None
    renewal: Renewal
    anew: bool = False

    def over(self, policy: Policy) -> Policy:
        """Return a policy as these terms make it."""
        return structs.replace(
            policy, limit=self.limit, currency=self.currency, renewal=self.renewal
        )


class Pool(Struct, kw_only=True):
    """A pool of units; `sequence` is its last transfer's, `as_of` the time of its last decision.

    customer: who it belongs to. subject: the only one that may take from it, where it is one's own.
    license: the one that it is of, as it stands with the rest of the pool.
    opened_at: from when its periods are counted, in `timezone`. terms: those that come next; where
    their time has come, the policy has them.
    """

    key: str
    unit: str
    customer: str | None = None
    subject: str | None = None
    license: LicenseTerm | None = None
    policy: Policy = Policy()
    terms: Terms | None = None
    status: PoolStatus = PoolStatus.OPEN
    opened_at: datetime
    timezone: str = "UTC"
    sequence: int = 0
    as_of: datetime
    balances: Balances = field(default_factory=no_balances)
    counters: Counters = field(default_factory=Counters)

    @property
    def available(self) -> Decimal:
        """What all its grants have left."""
        return self.balances[Account.GRANT]

    @property
    def capacity(self) -> Decimal:
        """What its grants have, and had, to give in this period."""
        return capacity_of(self.available, -self.balances[Account.OVERDRAFT], self.counters)


def capacity_of(available: Decimal, overdraft: Decimal, counters: Counters) -> Decimal:
    """Return what is available and what was taken from grants in this period, together.

    Grants that are used up are in it, those that expired are not. overdraft: what is borrowed, as a
    positive number.
    """
    beyond = exact_sum((counters.overage, counters.burst, counters.unlimited, overdraft))
    return EXACT.add(available, max(ZERO, EXACT.subtract(counters.used, beyond)))


def cycle_of(renewal: Renewal, start: datetime, timezone: str) -> Cycle:
    """Return the periods of something that renews from `start` on."""
    return Cycle(
        unit=renewal.unit,
        count=renewal.count,
        start=start,
        anchor_day=renewal.anchor_day,
        timezone=timezone,
    )
