"""What a customer's page says of what the customer may use: entitlements, licenses, its family."""

from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.flows.entitle import effective
from farebox.http.entitlements import EntitlementView, entitlement_views
from farebox.http.licenses import LicenseView, license_view
from farebox.postgres.console import CustomerName, children
from farebox.postgres.license import LicensePool, list_licenses, pools_of_licenses

ENTITLEMENTS_SHOWN = 20
LICENSES_SHOWN = 12
CHILDREN_SHOWN = 24
POOLS_SHOWN = 4


class LicenseItem(Struct, frozen=True):
    """A license as it stands, with the first of its pools."""

    view: LicenseView
    pools: Sequence[LicensePool]
    pools_more: int


class Rights(Struct, frozen=True, kw_only=True):
    """What a customer may use, each list as far as a page shows it; `more` is past its end."""

    entitlements: Sequence[EntitlementView]
    entitlements_more: int
    licenses: Sequence[LicenseItem]
    licenses_more: bool
    children: Sequence[CustomerName]
    children_more: bool


def read_rights(
    connection: Connection, organization_id: UUID, customer_key: str, now: datetime
) -> Rights:
    """Return what a customer may use at `now`; the connection is in a snapshot."""
    entitled = effective(connection, organization_id, customer_key, now)
    shown = dict(islice(entitled.items(), ENTITLEMENTS_SHOWN))
    licenses = _licenses(connection, organization_id, customer_key, now)
    below = children(connection, organization_id, customer_key, limit=CHILDREN_SHOWN + 1)
    return Rights(
        entitlements=entitlement_views(connection, organization_id, customer_key, shown, now),
        entitlements_more=len(entitled) - len(shown),
        licenses=licenses[:LICENSES_SHOWN],
        licenses_more=len(licenses) > LICENSES_SHOWN,
        children=below[:CHILDREN_SHOWN],
        children_more=len(below) > CHILDREN_SHOWN,
    )


def _licenses(
    connection: Connection, organization_id: UUID, customer_key: str, now: datetime
) -> list[LicenseItem]:
    rows = list_licenses(
        connection, organization_id, customer=customer_key, limit=LICENSES_SHOWN + 1
    )
    pools = pools_of_licenses(connection, organization_id, [one.license.key for one in rows])
    return [_item(license_view(one, now), pools.get(one.license.key, ())) for one in rows]


def _item(view: LicenseView, pools: Sequence[LicensePool]) -> LicenseItem:
    return LicenseItem(view, pools[:POOLS_SHOWN], max(0, len(pools) - POOLS_SHOWN))
