"""Readings of a backfill burn when it is switched: no step of burning will ever read them.

Where they count in the place of what an older version of the meter read, that has burned already.
So only what is used beyond it burns. What was used less stays burned until somebody takes it back.
"""

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.flows.burn_targets import burn_targets, serving_pools
from farebox.flows.burn_usage import RatedUses, rate_uses
from farebox.flows.rate_periods import read_terms
from farebox.postgres import burn_backfill as store
from farebox.postgres.backfill import BackfillRow


class PoolUnits(Struct, frozen=True):
    """How many units of a pool a backfill burns."""

    pool: str
    units: Decimal


class BackfillBurn(Struct, frozen=True):
    """What a backfill is to burn: `rated` is for `draw_uses`."""

    rated: RatedUses
    pools: Sequence[PoolUnits] = ()


def rate_backfill(
    connection: Connection, organization_id: UUID, row: BackfillRow, burned: int | None
) -> BackfillBurn:
    """Return what a backfill that was built, and is not switched yet, is to burn.

    burned: up to which event usage has burned pools; none: no pool may.
    """
    nothing = BackfillBurn(RatedUses({}, ()))
    if burned is None:
        return nothing
    customers = store.set_aside(connection, organization_id, row, burned)
    serving = serving_pools(connection, organization_id, customers)
    if not serving.pools:
        return nothing
    terms = read_terms(connection, organization_id)
    store.keep_burned(connection, burn_targets(serving, terms.cards))
    rated = rate_uses(connection, serving, terms)
    keys = {one.pool_id: one.key for one in serving.pools}
    units = [PoolUnits(keys[pool_id], amount) for pool_id, amount in rated.units().items()]
    return BackfillBurn(rated, sorted(units, key=lambda one: one.pool))
