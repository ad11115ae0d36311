"""Usage that should have burned a pool and burned nothing, with the reason."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

import msgspec
from litestar import Router, get
from msgspec import Struct

from farebox.access.key import Scope
from farebox.http.authenticate import Principal, requires
from farebox.http.operation import Example, describe
from farebox.http.page import PAGE_USUAL, Limit
from farebox.http.state import State
from farebox.postgres.burn import unburned
from farebox.postgres.session import transaction


class UnburnedItem(Struct, frozen=True, kw_only=True):
    """Usage of one meter and one set of dimensions that burned nothing, for one reason."""

    pool: str
    meter: str
    dimensions: Mapping[str, str]
    reason: str
    events: int
    quantity: Decimal
    first_time: datetime
    last_time: datetime


@get(
    "/",
    guards=[requires(Scope.READ)],
    sync_to_thread=True,
    operation_id="list_unburned",
    opt=describe(
        "List usage that should have burned a pool and burned nothing, the latest first",
        answer=list[UnburnedItem],
        examples=[Example(path="/v1/unburned", answer=[])],
        description=(
            "`reason` is `no_rate`, `no_cell`, `below_zero` for usage of less than nothing, or the"
            " code with which the pool refused."
        ),
    ),
)
def list_all(farebox: State, principal: Principal, limit: Limit = PAGE_USUAL) -> list[UnburnedItem]:
    """List unburned usage."""
    with transaction(farebox.pool, principal.organization_id) as connection:
        rows = unburned(connection, principal.organization_id, limit)
    return [
        UnburnedItem(
            pool=row.pool,
            meter=row.meter,
            dimensions=msgspec.json.decode(row.dimensions, type=dict[str, str]),
            reason=row.reason,
            events=row.events,
            quantity=row.quantity,
            first_time=row.first_time,
            last_time=row.last_time,
        )
        for row in rows
    ]


routes = Router("/v1/unburned", route_handlers=[list_all], tags=["Ledger"])
