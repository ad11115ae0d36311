"""Entitlements: what a customer may use, how much of it is left, and where that comes from."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from litestar import Router, delete, get, put
from litestar.params import RawBody
from msgspec import Struct
from psycopg import Connection

from farebox.access.key import Scope
from farebox.catalog.code import CatalogCode
from farebox.catalog.entitled import Entitled, EntitledKind, Origin, Override
from farebox.flows.entitle import effective, limits_of, sync_entitlements
from farebox.flows.read_pool import books_now
from farebox.flows.renew_entitlement import resets_at
from farebox.http.authenticate import Principal, require_customer, requires
from farebox.http.body import read_body
from farebox.http.code import HttpCode
from farebox.http.licenses import license_unknown
from farebox.http.operation import Example, describe
from farebox.http.problem import refused
from farebox.http.state import State
from farebox.ledger.account import Account
from farebox.ledger.book import Book
from farebox.ledger.refusal import RefusalCode
from farebox.postgres import catalog, entitlement
from farebox.postgres.catalog import Kind
from farebox.postgres.customer import find_customer
from farebox.postgres.draft import lock_organization
from farebox.postgres.license import find_license
from farebox.postgres.session import transaction


class EntitlementView(Struct, frozen=True, kw_only=True):
    """What a customer may do with a feature now.

    limit: of the running period, none: without bound. used, remaining, overage, resets_at: of a
    metered one. origins: what it comes from; an override goes before all others.
    """

    feature: str
    kind: EntitledKind
    enabled: bool
    value: str | None = None
    unlimited: bool = False
    limit: Decimal | None = None
    used: Decimal | None = None
    remaining: Decimal | None = None
    overage: Decimal | None = None
    resets_at: datetime | None = None
    pool: str | None = None
    origins: Sequence[Origin]


REASON_MAX = 1000
_CUSTOMER = "/v1/customers/acme/entitlements"


def require_known(connection: Connection, principal: Principal, key: str) -> None:
    """Refuse a customer who is not there or not visible to whoever asks."""
    require_customer(principal, key, "customer")
    if find_customer(connection, principal.organization_id, key) is None:
        raise refused(HttpCode.NOT_FOUND, f"there is no customer {key!r}")


def _views(
    connection: Connection,
    principal: Principal,
    key: str,
    subject: str | None,
    now: datetime,
    license: str | None = None,
) -> list[EntitlementView]:
    organization_id = principal.organization_id
    require_known(connection, principal, key)
    if license is not None:
        found = find_license(connection, organization_id, license)
        if found is None or found.license.customer != key:
            raise license_unknown(license)
    entitled = effective(connection, organization_id, key, now, subject, license=license)
    return entitlement_views(connection, organization_id, key, entitled, now)


def entitlement_views(
    connection: Connection,
    organization_id: UUID,
    key: str,
    entitled: Mapping[str, Entitled],
    now: datetime,
) -> list[EntitlementView]:
    """Return what a customer is entitled to, with what is left of what is counted."""
    pools = entitlement.pools_of_features(connection, organization_id, key)
    ids = [pools[feature][0] for feature in entitled if feature in pools]
    books = books_now(connection, organization_id, ids, now)
    return [
        _view(one, books[pools[feature][0]] if feature in pools else None)
        for feature, one in entitled.items()
    ]


def _view(one: Entitled, book: Book | None) -> EntitlementView:
    metered = one.kind is EntitledKind.METERED
    limit = limits_of(one)
    if not metered or book is None:
        return EntitlementView(
            feature=one.feature,
            kind=one.kind,
            enabled=one.enabled,
            value=one.value,
            unlimited=one.unlimited,
            limit=limit,
            origins=one.origins,
        )
    counters = book.pool.counters
    return EntitlementView(
        feature=one.feature,
        kind=one.kind,
        enabled=one.enabled,
        value=one.value,
        unlimited=one.unlimited,
        limit=limit,
        used=counters.used,
        remaining=None if one.unlimited else book.pool.balances[Account.GRANT],
        overage=counters.overage,
        resets_at=resets_at(book),
        pool=book.pool.key,
        origins=one.origins,
    )


def _one(views: Sequence[EntitlementView], feature: str) -> EntitlementView:
    nothing = EntitlementView(feature=feature, kind=EntitledKind.BOOLEAN, enabled=False, origins=())
    return next((view for view in views if view.feature == feature), nothing)


@get(
    "/{key:str}/entitlements",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="list_entitlements",
    opt=describe(
        "List what a customer may use now, and what is left of it",
        answer=list[EntitlementView],
        codes=[HttpCode.NOT_FOUND, RefusalCode.LICENSE_UNKNOWN],
        examples=[Example(path=_CUSTOMER)],
        description=(
            "With `subject`, what was bought for that subject alone counts too; with `license`,"
            " what that license grants while it is in force."
        ),
    ),
)
def list_all(
    farebox: State,
    principal: Principal,
    key: str,
    subject: str | None = None,
    license: str | None = None,
) -> list[EntitlementView]:
    """List entitlements."""
    with transaction(farebox.pool, principal.organization_id, snapshot=True) as connection:
        return _views(connection, principal, key, subject, farebox.clock(), license)


@get(
    "/{key:str}/entitlements/{feature:str}",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="get_entitlement",
    opt=describe(
        "Read what a customer may do with a feature now",
        answer=EntitlementView,
        codes=[HttpCode.NOT_FOUND],
        examples=[
            Example(
                path=f"{_CUSTOMER}/time-travel",
                answer={
                    "feature": "time-travel",
                    "kind": "boolean",
                    "enabled": False,
                    "value": None,
                    "unlimited": False,
                    "limit": None,
                    "used": None,
                    "remaining": None,
                    "overage": None,
                    "resets_at": None,
                    "pool": None,
                    "origins": [],
                },
            )
        ],
        description="A feature that nothing entitles to is answered with `enabled` false.",
    ),
)
def get_one(
    farebox: State,
    principal: Principal,
    key: str,
    feature: str,
    subject: str | None = None,
    license: str | None = None,
) -> EntitlementView:
    """Read one entitlement."""
    with transaction(farebox.pool, principal.organization_id, snapshot=True) as connection:
        views = _views(connection, principal, key, subject, farebox.clock(), license)
    return _one(views, feature)


@put(
    "/{key:str}/entitlements/{feature:str}",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    operation_id="put_entitlement_override",
    opt=describe(
        "Override what a customer may do with a feature",
        request=Override,
        answer=EntitlementView,
        codes=[
            HttpCode.NOT_FOUND,
            CatalogCode.UNKNOWN_FEATURE,
            CatalogCode.ENTITLEMENT_CONTRADICTORY,
        ],
        examples=[
            Example(
                path=f"{_CUSTOMER}/chat",
                body={"limit": "500", "reason": "pilot, until the contract is signed"},
            ),
            Example(path=f"{_CUSTOMER}/time-travel", body={}, status=422),
        ],
        description="It goes before plans, add-ons and purchases, until `ends_at` or its removal.",
    ),
)
def put_one(
    farebox: State, principal: Principal, key: str, feature: str, body: RawBody
) -> EntitlementView:
    """Put an override."""
    override, organization_id = read_body(body, Override), principal.organization_id
    now = farebox.clock()
    if (detail := _contradiction(override, now)) is not None:
        raise refused(CatalogCode.ENTITLEMENT_CONTRADICTORY, detail)
    with transaction(farebox.pool, organization_id) as connection:
        lock_organization(connection, organization_id)
        require_known(connection, principal, key)
        if not catalog.versions(connection, organization_id, Kind.FEATURE, feature):
            detail = f"there is no feature {feature[:150]!r}"
            raise refused(CatalogCode.UNKNOWN_FEATURE, detail)
        entitlement.put_override(connection, organization_id, key, feature, override, now)
        sync_entitlements(connection, organization_id, key, now, farebox.new_id)
        views = _views(connection, principal, key, None, now)
    return _one(views, feature)


def _contradiction(override: Override, now: datetime) -> str | None:
    """Return what is wrong with an override, in words."""
    given = (override.value is not None, override.limit is not None, override.unlimited)
    if sum(given) > 1 or (override.limit is not None and override.limit < 0):
        return "one of value, a limit that is not negative, and unlimited says what it is"
    if any(given) and not override.enabled:
        return "what takes a feature away gives nothing of it"
    if override.ends_at is not None and override.ends_at <= now:
        return "an override ends in the future"
    if len(override.reason) > REASON_MAX:
        return f"a reason has at most {REASON_MAX} characters"
    return None


@delete(
    "/{key:str}/entitlements/{feature:str}",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    status_code=204,
    operation_id="delete_entitlement_override",
    opt=describe(
        "Take an override away",
        status=204,
        codes=[HttpCode.NOT_FOUND],
        examples=[
            Example(path=f"{_CUSTOMER}/chat", status=204),
            Example(path=f"{_CUSTOMER}/chat", status=404),
        ],
    ),
)
def delete_one(farebox: State, principal: Principal, key: str, feature: str) -> None:
    """Remove an override."""
    organization_id, now = principal.organization_id, farebox.clock()
    with transaction(farebox.pool, organization_id) as connection:
        lock_organization(connection, organization_id)
        require_known(connection, principal, key)
        if not entitlement.drop_override(connection, organization_id, key, feature):
            raise refused(HttpCode.NOT_FOUND, "there is no override of this feature")
        sync_entitlements(connection, organization_id, key, now, farebox.new_id)


routes = Router(
    "/v1/customers",
    route_handlers=[list_all, get_one, put_one, delete_one],
    tags=["Entitlements"],
)
