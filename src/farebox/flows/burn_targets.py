"""Which pool a customer's usage burns: its own, or one of the customers that it is part of."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.catalog.resolve import CardVersion
from farebox.period.instant import END
from farebox.period.span import without
from farebox.postgres import burn, customer
from farebox.postgres.burn import BurningPool

Target = tuple[str, str, UUID, datetime, datetime]
"""A customer, a meter, the pool that its use burns, and for events from when to when."""


class Serving(Struct, frozen=True):
    """Pools that usage burns, and whom each customer is part of, the nearest first."""

    customers: Sequence[str]
    above: Mapping[str, Sequence[str]]
    pools: Sequence[BurningPool]


def serving_pools(
    connection: Connection, organization_id: UUID, customers: Sequence[str]
) -> Serving:
    """Return the pools that usage of these customers may burn."""
    above = customer.ancestors(connection, organization_id, customers)
    everybody = sorted({*customers, *(one for keys in above.values() for one in keys)})
    return Serving(customers, above, burn.burning_pools(connection, organization_id, everybody))


def burn_targets(serving: Serving, cards: Mapping[str, Sequence[CardVersion]]) -> list[Target]:
    """Return which pool each customer's use of a meter burns, and from when to when.

    Its own pools go before those of whom it is part of, the nearest first; of several of one
    customer, the first by key. So a use burns one pool.
    """
    of_customer: dict[str, list[BurningPool]] = defaultdict(list)
    for pool in serving.pools:
        of_customer[pool.customer].append(pool)
    targets: list[Target] = []
    for key in serving.customers:
        taken: dict[str, list[Target]] = defaultdict(list)
        for owner in (key, *serving.above.get(key, ())):
            for pool in of_customer.get(owner, ()):
                if owner == key or pool.serves_children:
                    _add(taken, key, pool, cards.get(pool.rate_card, ()))
        targets += [target for some in taken.values() for target in some]
    return targets


def _add(
    taken: dict[str, list[Target]], key: str, pool: BurningPool, history: Sequence[CardVersion]
) -> None:
    for meter in sorted({rate.meter for version in history for rate in version.card.rates}):
        spans = [(target[3], target[4]) for target in taken[meter]]
        for since, until in without(pool.since, pool.until or END, spans):
            taken[meter].append((key, meter, pool.pool_id, since, until))
