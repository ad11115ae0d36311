"""Webhook endpoints: where notices are sent, the secrets that sign them, and how it goes."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row

from farebox.notices.delivery import Verdict


class EndpointRow(Struct, frozen=True, kw_only=True):
    """An endpoint without its secrets; `metadata` is JSON text.

    types: empty for all. customer_key: None for notices of every customer. failures: in a row.
    """

    key: str
    url: str
    types: list[str]
    customer_key: str | None
    description: str
    metadata: str
    enabled: bool
    created_at: datetime
    updated_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None
    last_success_at: datetime | None
    last_failure_at: datetime | None
    failing_since: datetime | None
    failures: int
    rests_until: datetime | None


class Wanted(Struct, frozen=True, kw_only=True):
    """What a person wants an endpoint to be."""

    key: str
    url: str
    types: Sequence[str]
    customer_key: str | None
    description: str
    metadata: Mapping[str, str]
    enabled: bool


class Target(Struct, frozen=True, kw_only=True):
    """Where to send, and the secrets to sign by, the newest first."""

    url: str
    secrets: list[str]


_COLUMNS = (
    "key, url, types, customer_key, description, metadata::text, enabled, created_at, updated_at,"
    " disabled_at, disabled_reason, last_success_at, last_failure_at, failing_since, failures,"
    " rests_until"
)


def add_endpoint(
    connection: Connection, organization_id: UUID, wanted: Wanted, secret: str, now: datetime
) -> None:
    connection.execute(
        "insert into webhook_endpoint (organization_id, key, url, types, customer_key, description,"
        "  metadata, enabled, secret, created_at, updated_at)"
        " values (%(org)s, %(key)s, %(url)s, %(types)s, %(customer)s, %(description)s,"
        "  %(metadata)s, %(enabled)s, %(secret)s, %(now)s, %(now)s)",
        {**_values(organization_id, wanted, now), "secret": secret},
    )


def change_endpoint(
    connection: Connection, organization_id: UUID, wanted: Wanted, now: datetime, *, afresh: bool
) -> None:
    """Change an endpoint; `afresh` forgets how it went so far, as for another receiver."""
    health = (
        ", disabled_at = null, disabled_reason = null, failing_since = null, failures = 0,"
        " rests_until = null"
    )
    connection.execute(
        "update webhook_endpoint set url = %(url)s, types = %(types)s,"
        "  customer_key = %(customer)s, description = %(description)s, metadata = %(metadata)s,"
        f" enabled = %(enabled)s, updated_at = %(now)s{health if afresh else ''}"
        " where organization_id = %(org)s and key = %(key)s",
        _values(organization_id, wanted, now),
    )


def _values(organization_id: UUID, wanted: Wanted, now: datetime) -> dict[str, object]:
    return {
        "org": organization_id,
        "key": wanted.key,
        "url": wanted.url,
        "types": list(wanted.types),
        "customer": wanted.customer_key,
        "description": wanted.description,
        "metadata": msgspec.json.encode(wanted.metadata).decode(),
        "enabled": wanted.enabled,
        "now": now,
    }


def find_endpoint(connection: Connection, organization_id: UUID, key: str) -> EndpointRow | None:
    cursor = connection.cursor(row_factory=class_row(EndpointRow))
    return cursor.execute(
        f"select {_COLUMNS} from webhook_endpoint where organization_id = %s and key = %s",
        (organization_id, key),
    ).fetchone()


def endpoints(
    connection: Connection, organization_id: UUID, *, after: str = "", limit: int = 100
) -> Sequence[EndpointRow]:
    """Return endpoints by key, a page at a time."""
    cursor = connection.cursor(row_factory=class_row(EndpointRow))
    return cursor.execute(
        f"select {_COLUMNS} from webhook_endpoint where organization_id = %s and key > %s"
        " order by key limit %s",
        (organization_id, after, limit),
    ).fetchall()


def enabled_endpoints(connection: Connection, organization_id: UUID) -> Sequence[EndpointRow]:
    """Return every endpoint that is sent notices; there are at most a hundred."""
    cursor = connection.cursor(row_factory=class_row(EndpointRow))
    return cursor.execute(
        f"select {_COLUMNS} from webhook_endpoint where organization_id = %s and enabled"
        " order by key",
        (organization_id,),
    ).fetchall()


def count_endpoints(connection: Connection, organization_id: UUID) -> int:
    row = connection.execute(
        "select count(*) from webhook_endpoint where organization_id = %s", (organization_id,)
    ).fetchone()
    assert row is not None
    return int(row[0])


def rotate_secret(
    connection: Connection,
    organization_id: UUID,
    key: str,
    secret: str,
    earlier_until: datetime,
    now: datetime,
) -> bool:
    """Sign by a new secret from now on, and until an instant by the last one too."""
    cursor = connection.execute(
        "update webhook_endpoint set secret = %s, earlier_secret = secret, earlier_until = %s,"
        "  updated_at = %s where organization_id = %s and key = %s",
        (secret, earlier_until, now, organization_id, key),
    )
    return cursor.rowcount == 1


def delete_endpoint(connection: Connection, organization_id: UUID, key: str) -> bool:
    """Delete an endpoint with its deliveries; False where there is none."""
    cursor = connection.execute(
        "delete from webhook_endpoint where organization_id = %s and key = %s",
        (organization_id, key),
    )
    return cursor.rowcount == 1


def lock_target(
    connection: Connection, organization_id: UUID, key: str, now: datetime
) -> Target | None:
    """Return where to send, and hold the endpoint; None where it is held, disabled or rests."""
    row = connection.execute(
        "select url, secret, case when earlier_until > %(now)s then earlier_secret end"
        " from webhook_endpoint where organization_id = %(org)s and key = %(key)s and enabled"
        " and (rests_until is null or rests_until <= %(now)s) for no key update skip locked",
        {"org": organization_id, "key": key, "now": now},
    ).fetchone()
    if row is None:
        return None
    return Target(url=row[0], secrets=[secret for secret in row[1:] if secret is not None])


def lock_health(
    connection: Connection, organization_id: UUID, key: str
) -> tuple[int, datetime | None] | None:
    """Return how many attempts failed in a row, and since when, and hold the endpoint."""
    return connection.execute(
        "select failures, failing_since from webhook_endpoint"
        " where organization_id = %s and key = %s for no key update",
        (organization_id, key),
    ).fetchone()


def note_success(connection: Connection, organization_id: UUID, key: str, now: datetime) -> None:
    connection.execute(
        "update webhook_endpoint set last_success_at = %s, failing_since = null, failures = 0,"
        "  rests_until = null where organization_id = %s and key = %s",
        (now, organization_id, key),
    )


def note_failure(
    connection: Connection, organization_id: UUID, key: str, verdict: Verdict, now: datetime
) -> None:
    """Count a failure, let the endpoint rest, and disable it where the verdict says so."""
    connection.execute(
        "update webhook_endpoint set last_failure_at = %(now)s, failures = failures + 1,"
        "  failing_since = coalesce(failing_since, %(now)s), rests_until = %(rests)s,"
        "  enabled = enabled and %(reason)s::text is null,"
        "  disabled_at = case when enabled and %(reason)s::text is not null then %(now)s"
        "                else disabled_at end,"
        "  disabled_reason = case when enabled and %(reason)s::text is not null then %(reason)s"
        "                    else disabled_reason end"
        " where organization_id = %(org)s and key = %(key)s",
        {
            "org": organization_id,
            "key": key,
            "now": now,
            "rests": verdict.rests_until,
            "reason": verdict.disabled,
        },
    )


def endpoints_due(
    connection: Connection, now: datetime, each: int, at_most: int
) -> list[tuple[UUID, str]]:
    """Return organizations and endpoints with something to send; needs no organization.

    each: how many of one organization.
    """
    return connection.execute(
        "select organization_id, endpoint_key from webhook_endpoints_due(%s, %s, %s)",
        (now, each, at_most),
    ).fetchall()
