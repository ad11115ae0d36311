"""Move a subject to a customer from an instant on: what it uses from then is that customer's."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.catalog.code import CatalogCode
from farebox.catalog.document import value_problems
from farebox.catalog.problem import Problem
from farebox.flows.burn_late import burn_late, changed
from farebox.period.instant import END
from farebox.postgres import customer as store
from farebox.postgres import subject_move
from farebox.postgres.burn_late import Burned
from farebox.postgres.customer import SubjectRow
from farebox.postgres.draft import lock_organization


class MoveCode(StrEnum):
    """Why a subject is not moved, in order of precedence."""

    NO_SUCH_SUBJECT = "no_such_subject"
    PERIOD_FINAL = "period_final"
    USAGE_BURNED = "usage_burned"


class Moved(Struct, frozen=True):
    """Whose the subject was and is, oldest first, and whether this move changed it."""

    mappings: list[SubjectRow]
    changed: bool


def move_subject_in(
    connection: Connection,
    organization_id: UUID,
    subject: str,
    customer_key: str,
    starts: datetime,
    now: datetime,
) -> Moved | list[Problem]:
    """Let `subject` belong to the customer from `starts` on, in the caller's transaction.

    What was planned for later is replaced. A move into a period whose usage is on a final invoice
    of either customer is refused: that invoice would no longer say what was used. So is one of
    usage that has burned another pool; usage that has burned none burns the customer's now.
    """
    lock_organization(connection, organization_id)
    problems = list(value_problems(starts, "/from"))
    if problems:
        return problems
    if store.find_customer(connection, organization_id, customer_key) is None:
        message = f"there is no customer {customer_key!r}"
        return [Problem(CatalogCode.UNKNOWN_CUSTOMER, "/customer", message)]
    rows = store.subject_rows(connection, organization_id, [subject])
    if not rows:
        message = f"no customer has a subject {subject!r}; list it with the customer"
        return [Problem(MoveCode.NO_SUCH_SUBJECT, "", message)]
    later = [row for row in rows if row.valid_to > starts]
    if later == [SubjectRow(subject, customer_key, rows[-1].valid_from, END)] and (
        later[0].valid_from <= starts
    ):
        return Moved(rows, changed=False)
    losers = {row.customer_key for row in later} | {customer_key}
    final = subject_move.final_until(connection, organization_id, sorted(losers), starts)
    if final is not None:
        message = f"usage until {final.isoformat()} is on a final invoice; move it from then on"
        return [Problem(MoveCode.PERIOD_FINAL, "/from", message)]
    burned = burn_late(
        connection, organization_id, changed(rows, subject, customer_key, starts), now
    )
    if burned:
        return [_has_burned(burned)]
    subject_move.cut(connection, organization_id, subject, starts)
    row = SubjectRow(subject, customer_key, starts, END)
    before = store.subject_rows(connection, organization_id, [subject])
    if before and before[-1].customer_key == customer_key and before[-1].valid_to == starts:
        subject_move.reopen(connection, organization_id, before[-1])
    else:
        store.add_subject(connection, organization_id, row)
    return Moved(store.subject_rows(connection, organization_id, [subject]), changed=True)


def _has_burned(found: Sequence[Burned]) -> Problem:
    pools = ", ".join(sorted({repr(one.pool) for one in found}))
    last = max(one.last_time for one in found).isoformat()
    message = (
        f"usage up to {last} has burned the pool {pools}; move the subject from later on, "
        "or take those draws back first"
    )
    return Problem(MoveCode.USAGE_BURNED, "/from", message)
