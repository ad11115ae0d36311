"""Which pool a request for a decision means: named, or through a feature; briefly remembered."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

import psycopg
import structlog
from litestar.concurrency import sync_to_thread
from msgspec import Struct

from farebox.catalog.cover import Cover
from farebox.flows.resolve_feature import Resolved, resolve_feature
from farebox.http.authenticate import Principal
from farebox.http.code import HttpCode
from farebox.http.cover_memory import REMEMBERED_MAX, Use, covers_of, is_fresh, is_helped
from farebox.http.decision import AuthorizeRequest
from farebox.http.gather import Gather
from farebox.http.problem import refused
from farebox.http.state import State
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres.pool import PoolKey, find_pools
from farebox.postgres.session import transaction

_log = structlog.get_logger()


class Target(Struct, frozen=True):
    """What decides: a pool, or none where a feature is simply on. `name` stands in the answer."""

    name: str
    pool: PoolKey | None


def refuse_another_customer(request: AuthorizeRequest, pool: PoolKey) -> None:
    """Raise Refused where a request names a pool and a customer whose it is not."""
    if request.customer not in (None, pool.customer):
        detail = f"pool {pool.key!r} is not that of customer {request.customer!r}; name only one"
        raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/customer")


class PoolFinder:
    """Finds pools for one process. What a pool is never changes; what a customer may use does."""

    def __init__(self, farebox: State) -> None:
        self._farebox = farebox
        self._pools: dict[tuple[UUID, str | UUID], PoolKey] = {}
        self._gathers: dict[UUID, Gather[str | UUID, PoolKey]] = {}
        self._features: dict[tuple[object, ...], tuple[datetime, Resolved | Refusal]] = {}

    async def target(self, principal: Principal, request: AuthorizeRequest) -> Target | Refusal:
        """Return what a request asks; raises Refused where it names neither pool nor feature."""
        if request.pool is not None and request.feature is None:
            found = await self.pool(principal, request.pool)
            if isinstance(found, Refusal):
                return found
            refuse_another_customer(request, found)
            return Target(found.key, found)
        if request.feature is None or request.pool is not None:
            detail = "a request names a pool, or a feature and who uses it"
            raise refused(HttpCode.PARAMETER_INVALID, detail, pointer="/pool")
        customer = request.customer or principal.customer_key
        resolved = await self._feature(principal, request.feature, customer, request.subject)
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
        self, principal: Principal, feature: str, customer: str | None, subject: str | None
    ) -> Resolved | Refusal:
        now = self._farebox.clock()
        place = (principal.organization_id, feature, customer, subject)
        remembered = self._features.get(place)
        if remembered is not None and is_fresh(remembered[0], now):
            return remembered[1]
        found = await sync_to_thread(
            resolve_feature,
            self._farebox.pool,
            principal.organization_id,
            feature,
            customer,
            subject,
            now,
            self._farebox.new_id,
        )
        if len(self._features) > REMEMBERED_MAX:
            self._features.clear()
        self._features[place] = (now, found)
        return found

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
