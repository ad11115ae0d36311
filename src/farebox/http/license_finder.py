"""Licenses that requests name, and the pools of each; briefly remembered, by one process."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

from msgspec import Struct

from farebox.http.authenticate import Principal
from farebox.http.cover_memory import REMEMBERED_MAX, is_fresh
from farebox.http.gather import Gather
from farebox.http.state import State
from farebox.ledger.license import LicenseTerm
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres.license import LicensePool, find_licenses, pools_of_licenses
from farebox.postgres.pool import PoolKey
from farebox.postgres.session import transaction


class Licensed(Struct, frozen=True):
    """A license: whose it is, its term, and the pools it has."""

    customer: str
    term: LicenseTerm
    pools: Sequence[LicensePool]

    def pool_of(self, unit: str | None) -> PoolKey | Refusal:
        """Return the pool of this license that is meant; of several, the one with this unit."""
        found = self.pools
        if unit is not None and len(found) > 1:
            found = [one for one in found if one.unit == unit]
        if len(found) == 1:
            return found[0].pool
        if not found:
            detail = f"license {self.term.key!r} has no pool{'' if unit is None else f' of {unit}'}"
            return Refusal(RefusalCode.POOL_UNKNOWN, detail)
        keys = ", ".join(one.pool.key for one in found[:10])
        by = "name the unit, or the pool" if unit is None else "name the pool"
        detail = f"license {self.term.key!r} has the pools {keys}: {by}"
        return Refusal(RefusalCode.LICENSE_POOL_AMBIGUOUS, detail)


class LicenseFinder:
    """Finds licenses for one process. Whether one is in force its pools know, to the instant."""

    def __init__(self, farebox: State) -> None:
        self._farebox = farebox
        self._found: dict[tuple[UUID, str], tuple[datetime, Licensed]] = {}
        self._gathers: dict[UUID, Gather[str, Licensed]] = {}

    async def find(self, principal: Principal, key: str) -> Licensed | Refusal:
        """Return a license, if whoever asks may see it."""
        organization_id, now = principal.organization_id, self._farebox.clock()
        remembered = self._found.get((organization_id, key))
        if remembered is not None and is_fresh(remembered[0], now):
            found: Licensed | None = remembered[1]
        else:
            found = await self._gather(organization_id).find(key)
            if found is not None:
                if len(self._found) > REMEMBERED_MAX:
                    self._found.clear()
                self._found[organization_id, key] = now, found
        if found is None or principal.customer_key not in (None, found.customer):
            return Refusal(RefusalCode.LICENSE_UNKNOWN, f"there is no license {key[:150]!r}")
        return found

    def _gather(self, organization_id: UUID) -> Gather[str, Licensed]:
        gather = self._gathers.get(organization_id)
        if gather is None:
            gather = Gather(partial(self._find, organization_id))
            self._gathers[organization_id] = gather
        return gather

    def _find(self, organization_id: UUID, keys: Sequence[str]) -> dict[str, Licensed]:
        with transaction(self._farebox.pool, organization_id, snapshot=True) as connection:
            rows = find_licenses(connection, organization_id, keys)
            pools = pools_of_licenses(connection, organization_id, keys)
        return {
            key: Licensed(row.license.customer, row.term, pools.get(key, ()))
            for key, row in rows.items()
        }
