"""Open an invoice line of a pool: its episodes, or its grant, and the entries of the ledger."""

from bisect import bisect_left
from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.invoicing.pool_use import (
    Episode,
    PoolUse,
    cost_of,
    costed_episodes,
    exact_amount,
    refund_of,
)
from farebox.money.rounding import EXACT
from farebox.postgres.explain import Place
from farebox.postgres.pool import find_pool
from farebox.postgres.pool_line import (
    GrantEntry,
    LineEntry,
    LineGrant,
    LinePeriod,
    grant_entries,
    line_entries,
    line_grant,
)


class Charged(Struct, frozen=True):
    """A part of a line with what it costs, before anything is rounded.

    episode: the place of an entry's episode on the line, from 1; none where that is not known.
    """

    entry: LineEntry
    amount: Decimal
    episode: int | None


class PoolExplained(Struct, frozen=True, kw_only=True):
    """What a line of a pool was made from; `after` is where the next page of entries begins.

    The entries are in the order of the ledger. episodes: with what each costs. Their units and
    amounts, and those of all entries, add up to the quantity and to `exact`.
    """

    pool_id: UUID
    use: PoolUse
    exact: Decimal
    episodes: Sequence[tuple[Episode, Decimal]]
    grant: LineGrant | None
    entries: Sequence[Charged]
    after: Place | None


def explain_pool(
    connection: Connection,
    organization_id: UUID,
    use: PoolUse,
    period: LinePeriod,
    currency: str,
    after: Place | None,
    limit: int,
) -> PoolExplained:
    """Open a line of the invoice of a period."""
    pool = find_pool(connection, organization_id, key=use.pool)
    assert pool is not None, "a pool stays"
    scope = connection, organization_id, pool.pool_id
    passed = 0 if after is None else after.sequence
    episodes, grant = costed_episodes(use), None
    if use.grant is None:
        # What is before belongs to lines of other prices, which may be long.
        passed = max(passed, min(one.first for one, _ in episodes) - 1)
        charged = [
            Charged(one, cost_of(use, one.units), _episode(one, episodes))
            for one in line_entries(*scope, use, period, after=passed, limit=limit + 1)
        ]
    else:
        grant = line_grant(*scope, use)
        charged = [
            Charged(one, _amount(use, grant, one, currency), None)
            for one in grant_entries(*scope, use, grant, period, after=passed, limit=limit + 1)
        ]
    following = None
    if len(charged) > limit:
        charged = charged[:limit]
        following = Place(charged[-1].entry.time, charged[-1].entry.sequence)
    return PoolExplained(
        pool_id=pool.pool_id,
        use=use,
        exact=exact_amount(use),
        episodes=episodes,
        grant=grant,
        entries=charged,
        after=following,
    )


def _amount(use: PoolUse, grant: LineGrant, entry: GrantEntry, currency: str) -> Decimal:
    """Return what an entry of a purchase or refund costs, of several each its part."""
    if entry.units == use.quantity:
        return exact_amount(use)
    back = EXACT.minus(entry.units)
    return EXACT.minus(refund_of(grant.cost, grant.amount, entry.before, back, currency))


def _episode(entry: LineEntry, episodes: Sequence[tuple[Episode, Decimal]]) -> int | None:
    """Return the place of the episode in which the units were used, also where they went back."""
    skipped = sum(one.earlier for one, _ in episodes)  # there is one at most, and it is the first
    if entry.earlier and skipped:
        return skipped
    used = entry.operation
    if entry.units < 0 and entry.undoes is not None:
        used = entry.undoes
    at = bisect_left(episodes, used, lo=skipped, key=lambda one: one[0].last)
    return at + 1 if at < len(episodes) else None
