"""The demo of a month: last month, whole, and in an organization that no other month touches."""

from datetime import UTC, datetime

import pytest

from farebox.cli.demo import last_month, prepare
from farebox.cli.runtime import Runtime
from farebox.postgres import catalog
from farebox.postgres.catalog import Kind
from farebox.postgres.database import DatabaseUrls
from farebox.postgres.session import Pool, transaction


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (datetime(2026, 11, 21, 11, 18, 51, 7, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)),
        (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)),
        (datetime(2026, 1, 31, tzinfo=UTC), datetime(2025, 12, 1, tzinfo=UTC)),
        (datetime(2028, 3, 31, tzinfo=UTC), datetime(2028, 2, 1, tzinfo=UTC)),
    ],
)
def test_the_last_complete_month(now: datetime, expected: datetime) -> None:
    assert expected == last_month(now)


def test_a_month_keeps_its_organization_and_the_next_has_another(
    pool: Pool, runtime_url: str
) -> None:
    runtime = Runtime(DatabaseUrls(runtime_url, None), pool)
    october, november = datetime(2035, 10, 1, tzinfo=UTC), datetime(2035, 11, 1, tzinfo=UTC)
    first = prepare(runtime, october)
    with transaction(pool, first) as connection:
        before = catalog.count_versions(connection, first)
        assert catalog.versions(connection, first, Kind.METER)
    assert first == prepare(runtime, october)
    assert first != prepare(runtime, november)
    with transaction(pool, first) as connection:
        assert before == catalog.count_versions(connection, first)
