"""Put a license, revoke it, shorten it: its pools go by what it is from the next decision on."""

from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from msgspec import Struct, structs
from psycopg import Connection

from farebox.catalog.code import CatalogCode
from farebox.catalog.license import License, check_license, granted
from farebox.catalog.problem import Problem
from farebox.postgres import catalog
from farebox.postgres import license as store
from farebox.postgres.catalog import Kind
from farebox.postgres.customer import find_customer
from farebox.postgres.draft import lock_organization
from farebox.postgres.license import LicenseRow
from farebox.postgres.session import Pool, transaction


class LicenseCode(StrEnum):
    """Why a license is not put or not bought, in order of precedence."""

    LICENSE_FIXED = "license_fixed"
    LICENSE_REVOKED = "license_revoked"
    LICENSE_ENDLESS = "license_endless"
    LICENSE_ENDS_BEFORE_START = "license_ends_before_start"


class PutLicense(Struct, frozen=True):
    """The license as it stands, and whether anything changed."""

    row: LicenseRow
    changed: bool
    created: bool = False


def put_license(
    pool: Pool, organization_id: UUID, license: License, now: datetime
) -> PutLicense | list[Problem]:
    """Add a license, or change all of it but whose it is; a revoked one stays as it is."""
    with transaction(pool, organization_id) as connection:
        lock_organization(connection, organization_id)
        return _put(connection, organization_id, license, now)


def _put(
    connection: Connection, organization_id: UUID, license: License, now: datetime
) -> PutLicense | list[Problem]:
    problems = problems_of(connection, organization_id, license)
    standing = store.find_license(connection, organization_id, license.key)
    if license.starts_at is None:
        begins = now if standing is None else standing.license.starts_at
        license = structs.replace(license, starts_at=begins)
    if standing is not None:
        problems += _fixed(standing, license)
    assert license.starts_at is not None
    if license.ends_at is not None and license.ends_at <= license.starts_at:
        message = "the end is the first instant that is not covered, so it comes after the start"
        code = LicenseCode.LICENSE_ENDS_BEFORE_START
        problems.append(Problem(code, "/ends_at", message))
    if problems:
        return problems
    if standing is not None and standing.license == license:
        return PutLicense(standing, changed=False)
    store.lock_pools(connection, organization_id, license.key)
    row = write_license(connection, organization_id, license, now)
    return PutLicense(row, changed=True, created=standing is None)


def problems_of(
    connection: Connection, organization_id: UUID, license: License, at: str = ""
) -> list[Problem]:
    """Return what is wrong with a license as it is asked for, by itself and by what it names."""
    named = {one.feature for one in granted(license)}
    known = {
        one for one in named if catalog.versions(connection, organization_id, Kind.FEATURE, one)
    }
    problems = check_license(license, known, at)
    if find_customer(connection, organization_id, license.customer) is None:
        message = f"there is no customer {license.customer!r}"
        problems.append(Problem(CatalogCode.UNKNOWN_CUSTOMER, f"{at}/customer", message))
    return problems


def _fixed(standing: LicenseRow, license: License) -> list[Problem]:
    if standing.license.customer != license.customer:
        message = "a license stays with its customer; revoke it and put another"
        return [Problem(LicenseCode.LICENSE_FIXED, "/customer", message)]
    if standing.revoked_at is not None and standing.license != license:
        message = f"it was revoked at {standing.revoked_at.isoformat()}, for good; put another"
        return [Problem(LicenseCode.LICENSE_REVOKED, "", message)]
    return []


def write_license(
    connection: Connection, organization_id: UUID, license: License, now: datetime
) -> LicenseRow:
    """Write a license that was checked; the organization and the license's pools are locked."""
    store.put_license(connection, organization_id, license, now)
    return _moved_on(connection, organization_id, license.key)


def _moved_on(connection: Connection, organization_id: UUID, key: str) -> LicenseRow:
    store.move_pools_on(connection, organization_id, key)
    row = store.find_license(connection, organization_id, key)
    assert row is not None, "a license is never removed"
    return row


def revoke_license(
    connection: Connection, organization_id: UUID, key: str, now: datetime
) -> LicenseRow:
    """Revoke a license that is there, for good; again, it is as it was."""
    lock_organization(connection, organization_id)
    store.lock_pools(connection, organization_id, key)
    store.revoke_license(connection, organization_id, key, now)
    return _moved_on(connection, organization_id, key)


def shorten_license(
    connection: Connection, organization_id: UUID, key: str, term: timedelta, now: datetime
) -> None:
    """Take a term that was bought off the end of a license; one that this ends, ends now.

    The organization and the pools are locked. Where somebody has taken its end away since, it has
    none to be moved.
    """
    row = store.find_license(connection, organization_id, key)
    assert row is not None, "a license is never removed"
    ends_at = row.license.ends_at
    if ends_at is None:
        return
    sooner = ends_at if ends_at <= now else max(ends_at - term, now)
    license = structs.replace(row.license, ends_at=sooner)
    store.put_license(connection, organization_id, license, now)
    _moved_on(connection, organization_id, key)
