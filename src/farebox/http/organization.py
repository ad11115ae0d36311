"""The caller's organization."""

from datetime import datetime

from litestar import Router, get
from msgspec import Struct

from farebox.access.id import Prefix, encode_id
from farebox.access.key import Scope
from farebox.http.authenticate import Principal, requires
from farebox.http.operation import Example, describe
from farebox.http.state import State
from farebox.postgres.organization import read_organization
from farebox.postgres.session import transaction


class OrganizationView(Struct, frozen=True):
    """A vendor on this installation."""

    id: str
    key: str
    name: str
    created_at: datetime


@get(
    "/",
    guards=[requires(Scope.READ)],
    sync_to_thread=True,
    operation_id="get_organization",
    opt=describe(
        "Read the organization of the API key",
        answer=OrganizationView,
        examples=[
            Example(
                path="/v1/organization",
                answer={
                    "id": "org_01jbsqz4e2e0rv8h9yj0fn5c7k",
                    "key": "acme-cloud",
                    "name": "Acme Cloud",
                    "created_at": "2026-10-01T00:00:00Z",
                },
            )
        ],
    ),
)
def get_organization(farebox: State, principal: Principal) -> OrganizationView:
    """Read the organization."""
    with transaction(farebox.pool, principal.organization_id) as connection:
        row = read_organization(connection, principal.organization_id)
    return OrganizationView(
        encode_id(Prefix.ORGANIZATION, row.organization_id), row.key, row.name, row.created_at
    )


routes = Router("/v1/organization", route_handlers=[get_organization], tags=["Organization"])
