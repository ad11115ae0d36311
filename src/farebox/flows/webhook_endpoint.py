"""Put, test and delete webhook endpoints, and change the secrets that sign what they get."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta, Struct
from psycopg import Connection

from farebox.catalog.code import CatalogCode
from farebox.catalog.problem import Problem
from farebox.catalog.rule import key as key_problems
from farebox.notices.address import check_url
from farebox.notices.message import make_secret
from farebox.notices.type import NoticeType
from farebox.postgres import customer, notice, webhook_delivery
from farebox.postgres import webhook_endpoint as store
from farebox.postgres.draft import lock_organization
from farebox.postgres.notice import Notice
from farebox.postgres.session import Pool, transaction
from farebox.postgres.webhook_delivery import DeliveryRow, NewDelivery
from farebox.postgres.webhook_endpoint import EndpointRow, Wanted

ENDPOINTS_MAX = 100
EARLIER_SECRET_HOLDS = timedelta(hours=24)


class WebhookCode(StrEnum):
    """Why an endpoint is not put, tested or sent to again, in order of precedence."""

    URL_INVALID = "url_invalid"
    URL_NOT_HTTPS = "url_not_https"
    URL_PRIVATE = "url_private"
    UNKNOWN_NOTICE_TYPE = "unknown_notice_type"
    TOO_MANY_ENDPOINTS = "too_many_endpoints"
    ENDPOINT_DISABLED = "endpoint_disabled"
    DELIVERY_UNDER_WAY = "delivery_under_way"
    RANGE_EMPTY = "range_empty"
    TOO_MANY_NOTICES = "too_many_notices"


class WebhookEndpoint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where notices are sent: those of `types` (empty: all), about `customer` (null: about any)."""

    key: str
    url: str
    types: tuple[str, ...] = ()
    customer: str | None = None
    description: Annotated[str, Meta(max_length=1000)] = ""
    enabled: bool = True
    metadata: Mapping[str, str] = {}


class PutEndpoint(Struct, frozen=True):
    """The endpoint as it stands; `secret` only where it is new."""

    row: EndpointRow
    changed: bool
    secret: str | None = None


class Rotated(Struct, frozen=True):
    """A new secret, and until when the one before it signs too."""

    secret: str
    earlier_until: datetime


_MESSAGES = {
    WebhookCode.URL_INVALID: "an absolute https URL in ASCII, up to 2,000 characters, without user"
    " and fragment",
    WebhookCode.URL_NOT_HTTPS: "webhooks are sent over https",
    WebhookCode.URL_PRIVATE: "this installation sends to public addresses only",
}


def put_endpoint(
    pool: Pool,
    organization_id: UUID,
    endpoint: WebhookEndpoint,
    now: datetime,
    random: bytes,
    *,
    private_addresses: bool,
) -> PutEndpoint | list[Problem]:
    """Add or change an endpoint; `random` is 32 bytes for the secret of a new one.

    One that is enabled again, or called elsewhere, begins afresh: it neither fails nor rests.
    """
    with transaction(pool, organization_id) as connection:
        lock_organization(connection, organization_id)
        standing = store.find_endpoint(connection, organization_id, endpoint.key)
        problems = [
            *_own_problems(endpoint, private_addresses),
            *_other_problems(connection, organization_id, endpoint, standing),
        ]
        if problems:
            return problems
        wanted = _wanted(endpoint)
        secret = None
        if standing is None:
            secret = make_secret(random)
            store.add_endpoint(connection, organization_id, wanted, secret, now)
        elif _as_wanted(standing) == wanted:
            return PutEndpoint(standing, changed=False)
        else:
            afresh = standing.url != wanted.url or (wanted.enabled and not standing.enabled)
            store.change_endpoint(connection, organization_id, wanted, now, afresh=afresh)
        row = store.find_endpoint(connection, organization_id, endpoint.key)
    assert row is not None
    return PutEndpoint(row, changed=True, secret=secret)


def rotate_secret_in(
    connection: Connection, organization_id: UUID, key: str, now: datetime, random: bytes
) -> Rotated | None:
    """Sign by a new secret, and for a day by the last one too; None: there is no such endpoint."""
    made = Rotated(make_secret(random), now + EARLIER_SECRET_HOLDS)
    found = store.rotate_secret(
        connection, organization_id, key, made.secret, made.earlier_until, now
    )
    return made if found else None


def delete_endpoint(pool: Pool, organization_id: UUID, key: str) -> bool:
    """Delete an endpoint with its deliveries and their log; False where there is none."""
    with transaction(pool, organization_id) as connection:
        return store.delete_endpoint(connection, organization_id, key)


def try_endpoint_in(
    connection: Connection,
    organization_id: UUID,
    endpoint: EndpointRow,
    now: datetime,
    notice_id: UUID,
    delivery_id: UUID,
) -> DeliveryRow | Problem:
    """Send a `webhook.test` to an endpoint, whatever its types; no other gets it."""
    if not endpoint.enabled:
        return disabled_problem(endpoint)
    test = Notice(
        notice_id=notice_id,
        type=NoticeType.WEBHOOK_TEST,
        time=now,
        customer=endpoint.customer_key,
        data={"endpoint": endpoint.key},
    )
    notice.add_notices(connection, organization_id, [test], dispatched_at=now)
    row = NewDelivery(delivery_id=delivery_id, endpoint_key=endpoint.key, notice_id=notice_id)
    webhook_delivery.add_deliveries(connection, organization_id, [row], now)
    found = webhook_delivery.find_delivery(connection, organization_id, delivery_id)
    assert found is not None
    return found


def disabled_problem(endpoint: EndpointRow) -> Problem:
    """Return the refusal to send anything to an endpoint that is disabled."""
    message = f"endpoint {endpoint.key} is disabled; enable it first"
    return Problem(WebhookCode.ENDPOINT_DISABLED, "", message)


def type_problems(types: Sequence[str], pointer: str = "/types") -> Iterator[Problem]:
    """Yield the types that no notice has."""
    for index, name in enumerate(types):
        if name not in NoticeType.__members__.values():
            message = f"there is no notice type {name[:100]!r}"
            yield Problem(WebhookCode.UNKNOWN_NOTICE_TYPE, f"{pointer}/{index}", message)


def _own_problems(endpoint: WebhookEndpoint, private_addresses: bool) -> Iterator[Problem]:
    yield from key_problems(endpoint.key, "")
    fault = check_url(endpoint.url, private_addresses=private_addresses)
    if fault is not None:
        code = WebhookCode(fault.value)
        yield Problem(code, "/url", _MESSAGES[code])
    yield from type_problems(endpoint.types)


def _other_problems(
    connection: Connection,
    organization_id: UUID,
    endpoint: WebhookEndpoint,
    standing: EndpointRow | None,
) -> Iterator[Problem]:
    if endpoint.customer is not None and not customer.customers_by_key(
        connection, organization_id, [endpoint.customer]
    ):
        message = f"there is no customer {endpoint.customer!r}"
        yield Problem(CatalogCode.UNKNOWN_CUSTOMER, "/customer", message)
    if standing is None and store.count_endpoints(connection, organization_id) >= ENDPOINTS_MAX:
        message = f"an organization has at most {ENDPOINTS_MAX} endpoints"
        yield Problem(WebhookCode.TOO_MANY_ENDPOINTS, "", message)


def _wanted(endpoint: WebhookEndpoint) -> Wanted:
    return Wanted(
        key=endpoint.key,
        url=endpoint.url,
        types=sorted(set(endpoint.types)),
        customer_key=endpoint.customer,
        description=endpoint.description,
        metadata=dict(endpoint.metadata),
        enabled=endpoint.enabled,
    )


def _as_wanted(row: EndpointRow) -> Wanted:
    return Wanted(
        key=row.key,
        url=row.url,
        types=row.types,
        customer_key=row.customer_key,
        description=row.description,
        metadata=msgspec.json.decode(row.metadata, type=dict[str, str]),
        enabled=row.enabled,
    )
