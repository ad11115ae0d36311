"""The organization of the transaction, as it presents itself."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection


class OrganizationRow(Struct, frozen=True):
    """A vendor on this installation."""

    organization_id: UUID
    key: str
    name: str
    created_at: datetime


def read_organization(connection: Connection, organization_id: UUID) -> OrganizationRow:
    row = connection.execute(
        "select organization_id, key, name, created_at from organization"
        " where organization_id = %s",
        (organization_id,),
    ).fetchone()
    assert row is not None, "a principal has an organization"
    return OrganizationRow(*row)
