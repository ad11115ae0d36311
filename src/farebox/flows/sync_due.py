"""Bring entitlements to what began or ended by its date since a while ago, customer by customer."""

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

import psycopg
import structlog

from farebox.flows.entitle import sync_entitlements
from farebox.postgres import entitlement as store
from farebox.postgres.draft import lock_organization
from farebox.postgres.session import Pool, transaction, unbound

_log = structlog.get_logger()


def sync_due(pool: Pool, now: datetime, span: timedelta, new_id: Callable[[], UUID]) -> int:
    """Sync every customer for whom a subscription or an override began or ended within `span`.

    Syncing twice changes nothing, so spans may overlap. Returns how many customers that were. Where
    one fails that is logged and the others go on; raises psycopg.OperationalError where the
    database is out of reach.
    """
    with unbound(pool) as connection:
        found = store.customers_to_sync(connection, now - span, now)
    for organization_id, customer_key in found:
        try:
            with transaction(pool, organization_id) as connection:
                lock_organization(connection, organization_id)
                sync_entitlements(connection, organization_id, customer_key, now, new_id)
        except psycopg.OperationalError:
            raise
        except Exception as error:
            _log.error(
                "sync_failed",
                organization_id=str(organization_id),
                customer=customer_key,
                error=str(error),
            )
    return len(found)
