"""A billing run: a month of many subscriptions, started over HTTP, timed to its last invoice."""

import time
from datetime import datetime, timedelta
from typing import Any

from bench.catalog import PLAN, customer_key, dimensions_of
from bench.http_client import post_json
from bench.installation import Installation, Organization
from bench.preload import add_series, series_of_user
from farebox.catalog.customer import Subscription
from farebox.cli.runtime import clock, new_id
from farebox.postgres import customer as store
from farebox.postgres.customer import SubscriptionRow
from farebox.postgres.session import transaction

BUCKETS_A_SERIES = 20
RUN_SECONDS = 300

_ROLLUP = """
insert into rollup
select s.organization_id, s.series_id, %(start)s::timestamptz + b * interval '33 hours', 3,
  case s.meter_key when 'requests' then 3 else 3000 end, 1, 1000
from series s cross join generate_series(0, %(buckets)s::int - 1) b
where s.organization_id = %(org)s
order by b, s.series_id"""


def measure_invoices(one: Installation, customers: int, month: datetime) -> dict[str, Any]:
    """Bill `month` (its first instant) for as many subscriptions as there are `customers`."""
    organization = one.make_organization("billing", customers)
    _subscribe(one, organization, customers, month)
    as_of = (month + timedelta(days=32)).replace(day=1)
    started = time.perf_counter()
    body = {"as_of": as_of.isoformat(), "finalize": True}
    status, answer = post_json(one.target(organization), "/v1/billing_runs", body)
    assert status in (200, 201, 202), (status, answer)
    invoices, lines = _wait_finished(one, organization)
    seconds = time.perf_counter() - started
    assert (customers, 3 * customers) == (invoices, lines), (customers, invoices, lines)
    return {
        "invoices_per_second": invoices / seconds,
        "invoices": invoices,
        "lines": lines,
        "rollup_rows": 4 * BUCKETS_A_SERIES * customers,
        "seconds": seconds,
    }


def _subscribe(
    one: Installation, organization: Organization, customers: int, month: datetime
) -> None:
    organization_id, now = organization.organization_id, clock()
    with transaction(one.runtime.pool, organization_id) as connection:
        for number in range(customers):
            key = customer_key(number)
            subscription = Subscription(key=key, customer=key, plan=PLAN.key, start=month)
            row = SubscriptionRow(key, new_id(), key, PLAN.key, 1, month, None, "UTC", None, "{}")
            store.put_subscription(connection, organization_id, subscription, row, now)
    with one.owner() as owner:
        made = [
            series
            for number in range(customers)
            for values in dimensions_of(number)
            for series in series_of_user(organization_id, number, values)
        ]
        add_series(owner, organization_id, made)
        parameters = {"org": organization_id, "start": month, "buckets": BUCKETS_A_SERIES}
        owner.execute(_ROLLUP, parameters)
        for table in ("customer", "subject", "subscription", "series", "rollup"):
            owner.execute(f"analyze {table}")


def _wait_finished(one: Installation, organization: Organization) -> tuple[int, int]:
    deadline = time.monotonic() + RUN_SECONDS
    parameters = (organization.organization_id,)
    with one.owner() as owner:
        while (
            owner.execute(
                "select 1 from billing_run where organization_id = %s and status = 'finished'",
                parameters,
            ).fetchone()
            is None
        ):
            assert time.monotonic() < deadline, "the billing run does not finish"
            time.sleep(0.02)
        row = owner.execute(
            "select count(*), (select count(*) from invoice_line l"
            "  where l.organization_id = %s) from invoice where organization_id = %s"
            " and status = 'final'",
            parameters * 2,
        ).fetchone()
    assert row is not None
    return row
