"""Which pool a customer's usage burns: its own, or one of the customers that it is part of."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import product
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace
from psycopg import Connection

from farebox.catalog.feature_card import is_charged, is_feature_card
from farebox.catalog.resolve import CardVersion
from farebox.period.instant import BEGINNING, END
from farebox.period.span import Span, without
from farebox.postgres import burn, customer
from farebox.postgres.burn import BurningPool
from farebox.postgres.customer import Above

Target = tuple[str, str, UUID, datetime, datetime]
"""A customer, a meter, the pool that its use burns, and for events from when to when."""


class Serving(Struct, frozen=True):
    """Pools that usage burns, and whom each customer is part of, the nearest first."""

    customers: Sequence[str]
    above: Mapping[str, Sequence[Above]]
    pools: Sequence[BurningPool]


def serving_pools(
    connection: Connection, organization_id: UUID, customers: Sequence[str]
) -> Serving:
    """Return the pools that usage of these customers may burn."""
    above = customer.ancestors(connection, organization_id, customers)
    everybody = sorted({*customers, *(one.key for some in above.values() for one in some)})
    return Serving(customers, above, burn.burning_pools(connection, organization_id, everybody))


def burn_targets(serving: Serving, cards: Mapping[str, Sequence[CardVersion]]) -> list[Target]:
    """Return which pool each customer's use of a meter burns, and from when to when.

    Rate cards that somebody gave a pool go before features that are used up by their meter. Among
    either, its own pools go before those of whom it is part of, the nearest first; of several of
    one customer, the first by key. So a use burns one pool. All of it is as it was at the time of
    the use: what a bill leaves out is what has burned.
    """
    of_customer: dict[tuple[str, bool], list[BurningPool]] = defaultdict(list)
    for pool in serving.pools:
        of_customer[pool.customer, is_feature_card(pool.rate_card)].append(pool)
    targets: list[Target] = []
    for key in serving.customers:
        taken: dict[str, list[Target]] = defaultdict(list)
        owners = (Above(key, BEGINNING, END), *serving.above.get(key, ()))
        for of_feature, owner in product((False, True), owners):
            for pool in of_customer.get((owner.key, of_feature), ()):
                if owner.key == key or pool.serves_children:
                    _add(taken, key, owner, pool, cards.get(pool.rate_card, ()))
        targets += [target for some in taken.values() for target in some]
    return targets


def may_burn(
    serving: Serving,
    cards: Mapping[str, Sequence[CardVersion]],
    pool_id: UUID,
    use: tuple[str, str],
    time: datetime,
) -> bool:
    """Tell whether a customer's use of a meter burns this pool, or would if no nearer one did."""
    alone = replace(serving, pools=[one for one in serving.pools if one.pool_id == pool_id])
    return any(
        (customer, meter) == use and since <= time < until
        for customer, meter, _, since, until in burn_targets(alone, cards)
    )


Burning = Mapping[tuple[str, str], Sequence[Span]]
"""By customer and meter, the spans in which its use burns a pool and no plan charges it."""


def burning_spans(
    connection: Connection,
    organization_id: UUID,
    customers: Sequence[str],
    cards: Mapping[str, Sequence[CardVersion]],
) -> Burning:
    """Return when usage of these customers burns pools, or did."""
    spans: dict[tuple[str, str], list[Span]] = defaultdict(list)
    serving = serving_pools(connection, organization_id, customers)
    for key, meter, pool_id, since, until in burn_targets(serving, cards):
        if not is_charged(card_at(serving.pools, pool_id, since)):
            spans[key, meter].append((since, until))
    return spans


def _add(
    taken: dict[str, list[Target]],
    key: str,
    owner: Above,
    pool: BurningPool,
    history: Sequence[CardVersion],
) -> None:
    for meter, rated_from in sorted(_rated_from(history).items()):
        since = max(pool.since, owner.since, rated_from)
        until = min(pool.until or END, owner.until)
        spans = [(target[3], target[4]) for target in taken[meter]]
        for start, end in without(since, until, spans):
            taken[meter].append((key, meter, pool.pool_id, start, end))


def _rated_from(history: Sequence[CardVersion]) -> dict[str, datetime]:
    """Return by meter from when on a card has rated it.

    A version may be in force from before it was published, but what was used by then has not
    burned.
    """
    begins: dict[str, datetime] = {}
    for version in history:
        begin = max(version.effective_from, version.published_at)
        for rate in version.card.rates:
            begins[rate.meter] = min(begins.get(rate.meter, END), begin)
    return begins


def card_at(pools: Sequence[BurningPool], pool_id: UUID, time: datetime) -> str:
    """Return the key of the rate card by which usage burned a pool at a time."""
    return next(
        one.rate_card
        for one in pools
        if one.pool_id == pool_id and one.since <= time and (one.until is None or time < one.until)
    )


def edges_of(
    pools: Sequence[BurningPool], cards: Mapping[str, Sequence[CardVersion]]
) -> list[datetime]:
    """Return when the way in which usage burns these pools changes, in order."""
    spans = {edge for one in pools for edge in (one.since, one.until) if edge is not None}
    keys = {one.rate_card for one in pools}
    return sorted(
        spans | {version.effective_from for key in keys for version in cards.get(key, ())}
    )
