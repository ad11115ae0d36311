"""SIGKILL at seeded random moments; afterwards everything the clients were told must be true.

Months pass: while events of a month come in, the server is killed in mid-ingest and in mid-fold;
then it is killed in mid-run while the month is billed and events of the next one come in.
"""

import http.client
import json
import random
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import cycle
from urllib.parse import urlencode
from uuid import UUID

import pytest
from farebox_faults import UNIT_PRICE, Client, Record, Service, Victim, customer_key, exchange

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("faults")]

CUSTOMERS = 600  # more than a page of a billing run, so that a kill falls between two
KILLS = 20
CLIENTS = 2
MOMENTS = ("ingest", "fold", "bill", "invoice")
BILLING = ("bill", "invoice")
WAIT_SECONDS = 60


# A row that cannot be locked is held by who is at work.
_AT_WORK = {
    "ingest": "select not exists (select from stream_head where organization_id = %s"
    " for update skip locked)",
    "fold": "select not exists (select from watermark where organization_id = %s"
    " for update skip locked)",
    "bill": "select exists (select from billing_run where organization_id = %s"
    " and status = 'running' and billing_run_id = (select max(r.billing_run_id::text)::uuid"
    "  from billing_run r))",
    "invoice": "select not exists (select from number_sequence where organization_id = %s"
    " for update skip locked)",
}


_LASTS_SECONDS = {"ingest": 0.02, "fold": 0.02, "bill": 0.6, "invoice": 0.1}


class Town:
    """A service, its one organization, and the months that were billed."""

    def __init__(self, service: Service, seed: int) -> None:
        self.service = service
        self.rng = random.Random(seed)
        self.month = _months_before(datetime.now(UTC), 12)
        self.organization_id, self.key = service.prepare(CUSTOMERS, self.month)
        self.record = Record(service.port, self.key, CUSTOMERS, seed)
        self.billed: list[datetime] = []
        self.caught: dict[str, int] = dict.fromkeys(MOMENTS, 0)
        self._victims = cycle(self.rng.sample(list(Victim), len(Victim)))
        service.start()

    def kill_during(self, moment: str, number: int) -> None:
        """Let clients work, kill at a random moment of the named kind, let all recover."""
        following = _next_month(self.month)
        clients = [
            # While a month is billed its events are over; those of the next one come.
            Client(self.record, f"r{number}c{at}", following if moment in BILLING else self.month)
            for at in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        time.sleep(self.rng.uniform(0, 0.4))
        run: threading.Thread | None = None
        if moment in BILLING:
            run = threading.Thread(target=self._try_to_bill, args=(following,))
            run.start()
        self._await_moment(moment, run)
        self.service.kill(next(self._victims), self.rng)
        if run is not None:
            run.join()
        for client in clients:
            client.stop()
        if moment in BILLING:
            assert 201 == self._bill(following), "the run after a killed one completes it"
            self.billed.append(self.month)
            self.month = following

    def _await_moment(self, moment: str, run: threading.Thread | None) -> None:
        """Return in the middle of an ingest, of a fold, of a billing run, of writing invoices."""
        deadline = time.monotonic() + 5
        with self.service.owner() as owner:
            while time.monotonic() < deadline and (run is None or run.is_alive()):
                if owner.execute(_AT_WORK[moment], (self.organization_id,)).fetchone() == (True,):
                    self.caught[moment] += 1
                    break
                time.sleep(0.002)
        time.sleep(self.rng.uniform(0, _LASTS_SECONDS[moment]))

    def _try_to_bill(self, as_of: datetime) -> None:
        with suppress(OSError, http.client.HTTPException):
            self._bill(as_of)

    def _bill(self, as_of: datetime) -> int:
        body = json.dumps({"as_of": as_of.isoformat()}).encode()
        path, json_type = "/v1/billing_runs", "application/json"
        return exchange(self.service.port, self.key, "POST", path, body, json_type)[0]

    def wait_folded(self) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        query = (
            "select last_sequence = sequence from stream_head join watermark"
            " using (organization_id) where organization_id = %s"
        )
        with self.service.owner() as owner:
            while owner.execute(query, (self.organization_id,)).fetchone() != (True,):
                assert time.monotonic() < deadline, "the rollups do not catch up"
                time.sleep(0.05)


def test_nothing_promised_is_lost_or_counted_twice(service: Service, fault_seed: int) -> None:
    town = Town(service, fault_seed)
    moments = cycle(MOMENTS)
    for number in range(KILLS):
        town.kill_during(next(moments), number)
    audit_answers(town)
    audit_stream(town)
    audit_usage(town)
    audit_invoices(town)
    print(f"seed {fault_seed}: {len(town.record.units)} events, caught {town.caught}")


def audit_answers(town: Town) -> None:
    """Every event was acknowledged, and none was accepted twice."""
    told = town.record.told
    assert set(town.record.units) == set(told)
    assert set() == {one for answers in told.values() for one in answers} - {
        "accepted",
        "duplicate",
    }
    assert [] == [identifier for identifier, answers in told.items() if answers["accepted"] > 1]


def audit_stream(town: Town) -> None:
    """Every event stands in the stream once, under a dense sequence, with its key."""
    with town.service.owner() as owner:
        rows = owner.execute(
            "select e.id, e.sequence from event e join event_key k"
            " on k.organization_id = e.organization_id and k.sequence = e.sequence"
            " where e.organization_id = %s order by e.sequence",
            (town.organization_id,),
        ).fetchall()
        keys = _count(town, "event_key")
        head = owner.execute(
            "select last_sequence from stream_head where organization_id = %s",
            (town.organization_id,),
        ).fetchone()
    assert sorted(town.record.units) == sorted(identifier for identifier, _ in rows)
    assert list(range(1, len(rows) + 1)) == [sequence for _, sequence in rows]
    assert (len(rows), (len(rows),)) == (keys, head)


def audit_usage(town: Town) -> None:
    """Rollups, and what the API says of a few customers, are the sums of the events sent."""
    town.wait_folded()
    with town.service.owner() as owner:
        rolled_up = owner.execute(
            "select s.subject, sum(r.total), sum(r.count) from rollup r join series s"
            " using (organization_id, series_id) where organization_id = %s group by 1",
            (town.organization_id,),
        ).fetchall()
    oracle = town.record.units_by_customer()
    assert oracle == {subject: total for subject, total, _ in rolled_up}
    assert len(town.record.units) == sum(count for _, _, count in rolled_up)

    for number in town.rng.sample(range(CUSTOMERS), 5):
        for month in (*town.billed, town.month):
            units = town.record.units_by_customer(month).get(customer_key(number), 0)
            assert units == _usage(town, customer_key(number), month)


def audit_invoices(town: Town) -> None:
    """Every period was invoiced once, under numbers without a gap, for what was used in it."""
    with town.service.owner() as owner:
        invoices = owner.execute(
            "select number, subscription_key, period_start, total from invoice"
            " where organization_id = %s and status = 'final' and kind = 'period'",
            (town.organization_id,),
        ).fetchall()
        sums = owner.execute(
            "select count(*) from invoice i where organization_id = %s and total <>"
            " (select coalesce(sum(amount), 0) from invoice_line l"
            "  where l.organization_id = i.organization_id and l.invoice_id = i.invoice_id)",
            (town.organization_id,),
        ).fetchone()
    assert len(invoices) == _count(town, "invoice")
    assert sorted((key, start) for _, key, start, _ in invoices) == sorted(
        (customer_key(number), month) for month in town.billed for number in range(CUSTOMERS)
    )
    numbers = sorted(int(number.rpartition("-")[2]) for number, *_ in invoices)
    assert list(range(1, len(invoices) + 1)) == numbers
    assert (0,) == sums
    for month in town.billed:
        used = town.record.units_by_customer(month)
        assert {key: UNIT_PRICE * used.get(key, 0) for _, key, start, _ in invoices} == {
            key: total for _, key, start, total in invoices if start == month
        }


def _usage(town: Town, customer: str, month: datetime) -> Decimal:
    query = {
        "meter": "units",
        "customer": customer,
        "from": month.isoformat(),
        "to": _next_month(month).isoformat(),
    }
    path = f"/v1/usage?{urlencode(query)}"
    status, text = exchange(town.service.port, town.key, "GET", path)
    assert 200 == status, text
    return sum((Decimal(row["quantity"]) for row in json.loads(text)["items"]), Decimal(0))


def _count(town: Town, table: str) -> int:
    organization_id: UUID = town.organization_id
    with town.service.owner() as owner:
        row = owner.execute(
            f"select count(*) from {table} where organization_id = %s", (organization_id,)
        ).fetchone()
    assert row is not None
    return int(row[0])


def _months_before(now: datetime, months: int) -> datetime:
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for _ in range(months):
        first = (first - timedelta(days=1)).replace(day=1)
    return first


def _next_month(first: datetime) -> datetime:
    return (first + timedelta(days=32)).replace(day=1)
