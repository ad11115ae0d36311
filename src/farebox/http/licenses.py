"""Licenses: put, listed, revoked. What a license lets be used are its features and its pools."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from litestar import Response, Router, get, post, put
from litestar.params import RawBody
from msgspec import Struct

from farebox.access.key import Scope
from farebox.catalog.code import CatalogCode
from farebox.catalog.license import License
from farebox.catalog.plan import Entitlement
from farebox.flows.put_license import LicenseCode, put_license, revoke_license
from farebox.http.authenticate import Principal, requires, visible_customer
from farebox.http.body import read_keyed
from farebox.http.code import HttpCode
from farebox.http.definition import tagged
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Cursor, Limit, Page, after_key, page_of
from farebox.http.problem import Refused, refused, refused_for
from farebox.http.state import State
from farebox.ledger.license import not_in_force
from farebox.ledger.refusal import RefusalCode
from farebox.postgres.license import LicenseRow, find_license, list_licenses
from farebox.postgres.session import transaction


class LicenseStatus(StrEnum):
    """What a license is now."""

    NOT_BEGUN = "not_begun"
    IN_FORCE = "in_force"
    OVER = "over"
    REVOKED = "revoked"


_STATUS = {
    None: LicenseStatus.IN_FORCE,
    RefusalCode.LICENSE_NOT_BEGUN: LicenseStatus.NOT_BEGUN,
    RefusalCode.LICENSE_OVER: LicenseStatus.OVER,
    RefusalCode.LICENSE_REVOKED: LicenseStatus.REVOKED,
}


class LicenseView(Struct, frozen=True, kw_only=True):
    """A license as it stands; `ends_at` none: it never ends."""

    key: str
    customer: str
    name: str
    subject: str | None
    features: Sequence[str]
    entitlements: Sequence[Entitlement]
    starts_at: datetime
    ends_at: datetime | None
    status: LicenseStatus
    revoked_at: datetime | None
    metadata: Mapping[str, str]


class LicenseAnswer(Struct, frozen=True):
    """The license as it stands; `changed` is false where it stood so already."""

    changed: bool
    license: LicenseView


def license_view(row: LicenseRow, now: datetime) -> LicenseView:
    one, term = row.license, row.term
    refusal = not_in_force(term, now)
    return LicenseView(
        key=one.key,
        customer=one.customer,
        name=one.name,
        subject=one.subject,
        features=one.features,
        entitlements=one.entitlements,
        starts_at=term.starts_at,
        ends_at=one.ends_at,
        status=_STATUS[None if refusal is None else refusal.code],
        revoked_at=row.revoked_at,
        metadata=one.metadata,
    )


def license_unknown(key: str) -> Refused:
    """Return the refusal of a license that is not there, or not for whoever asks."""
    return refused(RefusalCode.LICENSE_UNKNOWN, f"there is no license {key[:150]!r}")


_BODY = {
    "customer": "acme",
    "name": "Workstation 12",
    "features": ["chat"],
    "ends_at": "2036-10-01T00:00:00Z",
}
_VIEW: dict[str, Any] = {
    "key": "ACME-7F3K-22QX",
    "customer": "acme",
    "name": "Workstation 12",
    "subject": None,
    "features": ["chat"],
    "entitlements": [],
    "starts_at": "2026-10-01T00:00:00Z",
    "ends_at": "2036-10-01T00:00:00Z",
    "status": "in_force",
    "revoked_at": None,
    "metadata": {},
}
_PATH = "/v1/licenses/ACME-7F3K-22QX"


@put(
    "/{key:str}",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    operation_id="put_license",
    opt=describe(
        "Put a license: give a customer one, or change what it grants and until when",
        request=License,
        answer=LicenseAnswer,
        codes=[
            HttpCode.KEY_MISMATCH,
            CatalogCode.UNKNOWN_CUSTOMER,
            CatalogCode.UNKNOWN_FEATURE,
            CatalogCode.ENTITLEMENT_CONTRADICTORY,
            *LicenseCode,
        ],
        examples=[
            Example(path=_PATH, body=_BODY, status=201, answer={"changed": True, "license": _VIEW}),
            Example(path=_PATH, body={**_BODY, "features": ["time-travel"]}, status=422),
            Example(path="/v1/licenses/ACME-TRIAL", body={"customer": "acme"}, status=201),
        ],
        description=(
            "A change is in force from the next decision on. Answers 201 for a new license. Its"
            " customer never changes, and a revoked license not at all. What is counted is a pool"
            " of the license."
        ),
    ),
)
def put_one(farebox: State, principal: Principal, key: str, body: RawBody) -> Response[bytes]:
    """Put a license."""
    license, now = read_keyed(body, key, License), farebox.clock()
    done = put_license(farebox.pool, principal.organization_id, license, now)
    if isinstance(done, list):
        raise refused_for(done)
    answer = LicenseAnswer(done.changed, license_view(done.row, now))
    return tagged(answer, None, 201 if done.created else 200)


@get(
    "/",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="list_licenses",
    opt=describe(
        "List licenses by key",
        answer=Page[LicenseView],
        examples=[Example(path="/v1/licenses?customer=acme")],
    ),
)
def list_all(
    farebox: State,
    principal: Principal,
    customer: str | None = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_USUAL,
) -> Page[LicenseView]:
    """List licenses, of one customer where that is asked."""
    visible, after = visible_customer(principal, customer), after_key(cursor)
    with transaction(farebox.pool, principal.organization_id) as connection:
        rows = list_licenses(
            connection, principal.organization_id, customer=visible, after=after, limit=limit + 1
        )
    now = farebox.clock()
    return page_of([license_view(row, now) for row in rows], limit, lambda view: [view.key])


@get(
    "/{key:str}",
    guards=[requires(Scope.READ, customer_bound=True)],
    sync_to_thread=True,
    operation_id="get_license",
    opt=describe(
        "Read a license: whose it is, what it grants, and whether it is in force",
        answer=LicenseView,
        codes=[RefusalCode.LICENSE_UNKNOWN],
        examples=[Example(path=_PATH, answer=_VIEW)],
    ),
)
def get_one(farebox: State, principal: Principal, key: str) -> LicenseView:
    """Read a license."""
    with transaction(farebox.pool, principal.organization_id) as connection:
        row = find_license(connection, principal.organization_id, key)
    if row is None or principal.customer_key not in (None, row.license.customer):
        raise license_unknown(key)
    return license_view(row, farebox.clock())


@post(
    "/{key:str}/revoke",
    guards=[requires(Scope.MANAGE)],
    sync_to_thread=True,
    status_code=200,
    operation_id="revoke_license",
    opt=describe(
        "Revoke a license, for good",
        answer=LicenseAnswer,
        codes=[RefusalCode.LICENSE_UNKNOWN],
        examples=[
            Example(path="/v1/licenses/ACME-TRIAL/revoke"),
            Example(path="/v1/licenses/nowhere/revoke", status=404),
        ],
        description=(
            "Its pools give nothing from the next decision on, its features cease within five"
            " seconds. What is held may still be settled."
        ),
    ),
)
def revoke_one(farebox: State, principal: Principal, key: str) -> LicenseAnswer:
    """Revoke a license."""
    organization_id, now = principal.organization_id, farebox.clock()
    with transaction(farebox.pool, organization_id) as connection:
        found = find_license(connection, organization_id, key)
        if found is None:
            raise license_unknown(key)
        row = revoke_license(connection, organization_id, key, now)
    return LicenseAnswer(found.revoked_at is None, license_view(row, now))


routes = Router(
    "/v1/licenses", route_handlers=[put_one, list_all, get_one, revoke_one], tags=["Licenses"]
)
