"""Units of a pool buy a feature, or a license, for a term: in one transaction, as it goes back."""

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from msgspec import Struct, structs
from psycopg import Connection

from farebox.catalog.code import CatalogCode
from farebox.catalog.document import TIME_MAX
from farebox.catalog.license import License
from farebox.catalog.problem import Problem
from farebox.flows.decide_pools import Asked, decide_locked
from farebox.flows.put_license import LicenseCode, problems_of, write_license
from farebox.ledger.command import Answer, Draw
from farebox.ledger.refusal import Refusal
from farebox.postgres import entitlement
from farebox.postgres.draft import lock_organization
from farebox.postgres.entitlement import AccessRow
from farebox.postgres.license import LicenseRow, find_license, lock_pools


class Bought(Struct, frozen=True):
    """The draw that paid, and the access it paid for."""

    answer: Answer
    access: AccessRow


def buy_access(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    customer_key: str,
    feature_key: str,
    amount: Decimal,
    seconds: int,
    now: datetime,
    access_id: UUID,
    *,
    subject: str | None = None,
    note: str | None = None,
) -> Bought | Refusal:
    """Draw `amount` units and give the customer, or one subject, the feature for `seconds`.

    When the term is over the access is, without anybody doing anything. Taking back all of the
    draw takes the access back in the same transaction (`flows/reverse_draw.py`).
    """
    command = Draw(amount=amount, subject=subject, note=note)
    (outcome,), _ = decide_locked(connection, organization_id, [Asked(pool_id, command)], now)
    if isinstance(outcome, Refusal):
        return outcome
    ends_at = outcome.time + timedelta(seconds=seconds)
    row = AccessRow(
        access_id,
        customer_key,
        subject,
        feature_key,
        pool_id,
        outcome.operation,
        outcome.time,
        ends_at,
    )
    entitlement.add_access(connection, organization_id, row)
    return Bought(outcome, row)


def buy_license(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    asked: License,
    amount: Decimal,
    seconds: int,
    now: datetime,
    access_id: UUID,
    *,
    subject: str | None = None,
    note: str | None = None,
) -> Bought | Refusal | list[Problem]:
    """Draw `amount` units and let the customer of `asked` have that license for `seconds`.

    A license that is there is prolonged: from its end, or from now where it is over. Taking back
    all of the draw takes the term off its end again (`flows/reverse_draw.py`).
    """
    lock_organization(connection, organization_id)
    standing = find_license(connection, organization_id, asked.key)
    problems = problems_of(connection, organization_id, asked, "/license")
    if standing is not None:
        problems += _not_prolonged(standing, asked)
    term = timedelta(seconds=seconds)
    until = None if standing is None else standing.license.ends_at
    if max(until or now, now) >= TIME_MAX - term:
        message = f"it would end after {TIME_MAX.year - 1}"
        problems.append(Problem(CatalogCode.TIME_OUT_OF_RANGE, "/seconds", message))
    if problems:
        return problems
    lock_pools(connection, organization_id, asked.key, pool_id)
    command = Draw(amount=amount, subject=subject, note=note)
    (outcome,), _ = decide_locked(connection, organization_id, [Asked(pool_id, command)], now)
    if isinstance(outcome, Refusal):
        return outcome
    begins = max(until or outcome.time, outcome.time)
    license = structs.replace(asked, starts_at=begins) if standing is None else standing.license
    license = structs.replace(license, ends_at=begins + term)
    write_license(connection, organization_id, license, outcome.time)
    row = AccessRow(
        access_id,
        license.customer,
        subject,
        None,
        pool_id,
        outcome.operation,
        begins,
        begins + term,
        license_key=license.key,
    )
    entitlement.add_access(connection, organization_id, row)
    return Bought(outcome, row)


def _not_prolonged(standing: LicenseRow, asked: License) -> list[Problem]:
    """Return why a license that is there is not prolonged: a purchase changes no more of it."""
    one = standing.license
    bare = License(key=one.key, customer=one.customer)
    same = structs.replace(asked, starts_at=one.starts_at, ends_at=one.ends_at) == one
    if asked != bare and not same:
        message = "a license that is there is prolonged as it is; put it to change it"
        return [Problem(LicenseCode.LICENSE_FIXED, "/license", message)]
    if standing.revoked_at is not None:
        message = f"it was revoked at {standing.revoked_at.isoformat()}, for good"
        return [Problem(LicenseCode.LICENSE_REVOKED, "/license", message)]
    if one.ends_at is None:
        message = "it never ends, so that no term can be added"
        return [Problem(LicenseCode.LICENSE_ENDLESS, "/license", message)]
    return []
