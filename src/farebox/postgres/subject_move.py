"""What a move of a subject does to its mappings, and up to where no move may reach."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from psycopg import Connection

from farebox.period.instant import END
from farebox.postgres.customer import SubjectRow


def final_until(
    connection: Connection, organization_id: UUID, customer_keys: Sequence[str], after: datetime
) -> datetime | None:
    """Return the end of the last period that ends later than `after` and is finally invoiced."""
    row = connection.execute(
        "select max(period_end) from invoice where organization_id = %s"
        " and customer_key = any(%s) and status = 'final' and kind = 'period'"
        " and period_end > %s",
        (organization_id, list(customer_keys), after),
    ).fetchone()
    assert row is not None
    found: datetime | None = row[0]
    return found


def cut(connection: Connection, organization_id: UUID, subject: str, at: datetime) -> None:
    """End every mapping of a subject at an instant; those that begin later are dropped."""
    connection.execute(
        "delete from subject where organization_id = %s and subject = %s and valid_from >= %s",
        (organization_id, subject, at),
    )
    connection.execute(
        "update subject set valid_to = %s"
        " where organization_id = %s and subject = %s and valid_to > %s",
        (at, organization_id, subject, at),
    )


def reopen(connection: Connection, organization_id: UUID, row: SubjectRow) -> None:
    """Let a mapping that was cut go on."""
    connection.execute(
        "update subject set valid_to = %s"
        " where organization_id = %s and subject = %s and valid_from = %s",
        (END, organization_id, row.subject, row.valid_from),
    )
