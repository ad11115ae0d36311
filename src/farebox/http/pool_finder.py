"""Which pool a request for a decision means, however it names it; briefly remembered."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

import psycopg
import structlog
from litestar.concurrency import sync_to_thread
from msgspec import Struct

from farebox.catalog.cover import Cover
from farebox.flows.resolve_feature import Resolution, Resolved, resolve_feature
from farebox.flows.serve_children import is_served, not_served
from farebox.http.authenticate import Principal
from farebox.http.code import HttpCode
from farebox.http.cover_memory import REMEMBERED_MAX, Use, covers_of, is_fresh, is_helped
from farebox.http.decision import AuthorizeRequest
from farebox.http.gather import Gather
from farebox.http.license_finder import LicenseFinder
from farebox.http.problem import refused
from farebox.http.state import State
from farebox.ledger.license import not_in_force
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres.pool import PoolKey, find_pools
from farebox.postgres.session import transaction

_log = structlog.get_logger()


class Target(Struct, frozen=True):
    """What decides: a pool, or none where a feature is simply on. `name` stands in the answer."""

    name: str
    pool: PoolKey | None


class PoolFinder:
    """Finds pools for one process.

    Whose a pool is never changes; what a customer may use does, and whom a pool serves.
    """

    def __init__(self, farebox: State) -> None:
        self._farebox = farebox
        self._pools: dict[tuple[UUID, str | UUID], PoolKey] = {}
        self._gathers: dict[UUID, Gather[str | UUID, PoolKey]] = {}
        self._features: dict[tuple[object, ...], tuple[datetime, Resolution]] = {}
        self._licenses = LicenseFinder(farebox)
        self._served: dict[tuple[UUID, UUID, str], tuple[datetime, bool]] = {}

    async def target(self, principal: Principal, request: AuthorizeRequest) -> Target | Refusal:
        """Return what a request asks; raises Refused where it does not name one thing."""
        if request.pool is not None and request.feature is None and request.license is None:
            found = await self.pool(principal, request.pool)
            return await self._pool_target(principal, request, found)
        if request.pool is not None or (request.feature is None and request.license is None):
            detail = "a request names a pool, a license, or a feature and who uses it"
            raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/pool")
        if request.license is not None:
            return await self._licensed(principal, request, request.license)
        customer = request.customer or principal.customer_key
        return await self._feature_target(principal, request, customer)

    async def _pool_target(
        self, principal: Principal, request: AuthorizeRequest, found: PoolKey | Refusal
    ) -> Target | Refusal:
        if isinstance(found, Refusal):
            return found
        if request.customer is not None and not await self._serves(
            principal, found, request.customer
        ):
            return not_served(found, request.customer)
        return Target(found.key, found)

    async def _licensed(
        self, principal: Principal, request: AuthorizeRequest, key: str
    ) -> Target | Refusal:
        """Return the pool of a license, or what decides on a feature under it."""
        license = await self._licenses.find(principal, key)
        if isinstance(license, Refusal):
            return license
        if request.feature is None:
            return await self._pool_target(principal, request, license.pool_of(request.unit))
        if request.customer not in (None, license.customer):
            detail = f"license {key!r} is not that of customer {request.customer!r}"
            raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/customer")
        refusal = not_in_force(license.term, self._farebox.clock())
        return refusal or await self._feature_target(principal, request, license.customer)

    async def _feature_target(
        self, principal: Principal, request: AuthorizeRequest, customer: str | None
    ) -> Target | Refusal:
        assert request.feature is not None
        resolved = await self._feature(principal, request, request.feature, customer)
        if isinstance(resolved, Refusal):
            return resolved
        if principal.customer_key not in (None, resolved.customer):
            return Refusal(RefusalCode.CUSTOMER_UNKNOWN, f"there is no customer {customer!r}")
        if resolved.pool_id is None:
            return Target(request.feature, None)
        assert resolved.pool is not None
        key = PoolKey(resolved.pool_id, resolved.pool, resolved.customer, request.feature)
        return Target(resolved.pool, key)

    async def pool(self, principal: Principal, name: str | UUID) -> PoolKey | Refusal:
        """Return a pool by key or id, if whoever asks may see it."""
        organization_id = principal.organization_id
        found = self._pools.get((organization_id, name))
        if found is None:
            found = await self._gather(organization_id).find(name)
            if found is not None:
                if len(self._pools) > REMEMBERED_MAX:
                    self._pools.clear()
                self._pools[organization_id, name] = found
        if found is None or principal.customer_key not in (None, found.customer):
            return Refusal(RefusalCode.POOL_UNKNOWN, f"there is no pool {str(name)[:150]!r}")
        return found

    async def covers(
        self, principal: Principal, refusal: Refusal, use: Use, pool_id: UUID | None
    ) -> list[Cover]:
        """Return what would cover a use that was refused; nothing where that cannot be read now.

        By now the other requests of a batch are granted, and must be answered so.
        """
        if not is_helped(refusal, use):
            return []
        farebox, organization_id = self._farebox, principal.organization_id
        now = farebox.clock()
        sold = farebox.covers.sold(organization_id, use, now)
        if sold is None:
            read = farebox.covers.read
            try:
                sold = await sync_to_thread(read, farebox.pool, organization_id, use, now)
            except psycopg.Error as error:
                _log.warning("help_not_read", error=str(error))
                farebox.covers.unreadable(organization_id, use, now)
                return []
        book = None
        if pool_id is not None:
            book = farebox.intake.decider(organization_id).book(pool_id)
        return covers_of(sold, refusal, use, book)

    async def _feature(
        self, principal: Principal, request: AuthorizeRequest, feature: str, customer: str | None
    ) -> Resolved | Refusal:
        now, subject = self._farebox.clock(), request.subject
        place = (principal.organization_id, feature, customer, subject, request.license)
        remembered = self._features.get(place)
        if remembered is not None and is_fresh(remembered[0], now):
            until = remembered[1].until
            if until is None or now < until:
                return remembered[1].outcome
        found = await sync_to_thread(
            resolve_feature,
            self._farebox.pool,
            principal.organization_id,
            feature,
            customer,
            subject,
            now,
            self._farebox.new_id,
            license=request.license,
        )
        if len(self._features) > REMEMBERED_MAX:
            self._features.clear()
        self._features[place] = (now, found)
        return found.outcome

    async def _serves(self, principal: Principal, pool: PoolKey, customer: str) -> bool:
        if customer == pool.customer:
            return True
        now = self._farebox.clock()
        place = (principal.organization_id, pool.pool_id, customer)
        remembered = self._served.get(place)
        if remembered is not None and is_fresh(remembered[0], now):
            return remembered[1]
        found = await sync_to_thread(self._read_served, principal, pool, customer, now)
        if len(self._served) > REMEMBERED_MAX:
            self._served.clear()
        self._served[place] = (now, found)
        return found

    def _read_served(
        self, principal: Principal, pool: PoolKey, customer: str, now: datetime
    ) -> bool:
        organization_id = principal.organization_id
        with transaction(self._farebox.pool, organization_id) as connection:
            return is_served(connection, organization_id, pool, customer, now)

    def _gather(self, organization_id: UUID) -> Gather[str | UUID, PoolKey]:
        gather = self._gathers.get(organization_id)
        if gather is None:
            gather = Gather(partial(self._find, organization_id))
            self._gathers[organization_id] = gather
        return gather

    def _find(
        self, organization_id: UUID, names: Sequence[str | UUID]
    ) -> dict[str | UUID, PoolKey]:
        keys = [name for name in names if isinstance(name, str)]
        ids = [name for name in names if isinstance(name, UUID)]
        with transaction(self._farebox.pool, organization_id) as connection:
            found = find_pools(connection, organization_id, keys=keys, pool_ids=ids)
        return {one.key: one for one in found} | {one.pool_id: one for one in found}
