"""A small world for tests: one organization on real PostgreSQL, moved by the real flows."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from farebox.access.id import Prefix, encode_numbered, uuidv7
from farebox.catalog.customer import Customer, Subscription
from farebox.events.admit import Admitted, TimePolicy, admit
from farebox.events.decode import decode
from farebox.events.event import Event
from farebox.flows.bill import BillingResult, bill
from farebox.flows.decide_pools import Asked, Outcome, decide_pools
from farebox.flows.fold_rollups import fold_rollups
from farebox.flows.grant_units import grant_units
from farebox.flows.ingest import Ingested, ingest_in
from farebox.flows.load_book import load_book
from farebox.flows.publish import Definition, Published, publish
from farebox.flows.put_pool import PutPool, put_pool
from farebox.flows.refuse_draw import DrawRefusal
from farebox.ledger.administer import NewGrant
from farebox.ledger.command import Answer, Command, Draw
from farebox.ledger.grant import Grant
from farebox.ledger.policy import Policy
from farebox.ledger.pool import PoolDefinition
from farebox.period.instant import BEGINNING, END
from farebox.postgres import customer as customers
from farebox.postgres import invoice
from farebox.postgres.customer import SubjectRow, SubscriptionRow
from farebox.postgres.event_row import Prepared, prepare
from farebox.postgres.invoice import InvoiceRow, LineRow
from farebox.postgres.session import Pool, transaction

ANY_TIME = TimePolicy(late=None, future=None)


def at(text: str) -> datetime:
    """Read an instant as a test writes it: `2026-09-05 12:00`, in UTC unless it says otherwise."""
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def new_id() -> UUID:
    return uuidv7(int(datetime.now(UTC).timestamp() * 1000), os.urandom(10))


class World:
    """One organization; `now` is what its clock shows, and a test moves it."""

    def __init__(self, pool: Pool, organization_id: UUID, now: datetime) -> None:
        self.pool = pool
        self.organization_id = organization_id
        self.now = now
        self._sent = 0

    def clock(self) -> datetime:
        return self.now

    def publish(self, *definitions: Definition, since: datetime | None = None) -> list[Published]:
        return publish(self.pool, self.organization_id, definitions, self.now, effective_from=since)

    def customer(self, key: str, **fields: Any) -> None:
        """Add a customer whose own key is its subject for all time."""
        self.customer_only(key, **fields)
        self.map(key, key)

    def customer_only(self, key: str, **fields: Any) -> None:
        with transaction(self.pool, self.organization_id) as connection:
            customers.put_customer(
                connection,
                self.organization_id,
                Customer(key=key, **fields),
                new_id(),
                self.now,
            )

    def map(
        self, subject: str, customer: str, start: datetime = BEGINNING, end: datetime = END
    ) -> None:
        with transaction(self.pool, self.organization_id) as connection:
            row = SubjectRow(subject, customer, start, end)
            customers.add_subject(connection, self.organization_id, row)

    def subscribe(
        self,
        customer: str,
        plan: str,
        start: datetime,
        *,
        key: str | None = None,
        end: datetime | None = None,
        timezone: str = "UTC",
        plan_version: int = 1,
        anchor_day: int | None = None,
    ) -> None:
        key = key or f"{customer}-{plan}"
        subscription = Subscription(key=key, customer=customer, plan=plan, start=start, end=end)
        row = SubscriptionRow(
            key, new_id(), customer, plan, plan_version, start, end, timezone, anchor_day, "{}"
        )
        with transaction(self.pool, self.organization_id) as connection:
            customers.put_subscription(
                connection, self.organization_id, subscription, row, self.now
            )

    def event(
        self, kind: str, time: datetime, subject: str | None, /, **data: Any
    ) -> dict[str, Any]:
        """Return a CloudEvent with an id of its own."""
        self._sent += 1
        event = {
            "specversion": "1.0",
            "id": f"e{self._sent}",
            "source": "test",
            "type": kind,
            "time": time.isoformat(),
            "data": data,
        }
        return event if subject is None else {**event, "subject": subject}

    def send(self, *events: Mapping[str, Any]) -> list[str]:
        """Send CloudEvents as one batch and return what became of each."""
        body = json.dumps(events).encode()
        decoded = decode("application/cloudevents-batch+json", [], body)
        assert isinstance(decoded, list), decoded
        events, revision = self.prepare(*decoded)  # type: ignore[arg-type]
        outcomes = self.ingest(events, revision).outcomes
        return [one.code if isinstance(one, DrawRefusal) else one.value for one in outcomes]

    def prepare(self, *events: Event) -> tuple[list[Prepared], int]:
        """Return events as the catalog now reads them, and its revision."""
        book = load_book(self.pool, self.organization_id)
        prepared: list[Prepared] = []
        for index, event in enumerate(events):
            assert isinstance(event, Event), event
            admitted = admit(index, event, self.organization_id.bytes, self.now, ANY_TIME)
            assert isinstance(admitted, Admitted), admitted
            one = prepare(book, admitted)
            assert isinstance(one, Prepared), one
            prepared.append(one)
        return prepared, book.revision

    def ingest(
        self,
        events: Sequence[Prepared],
        revision: int,
        *,
        known: set[str] | None = None,
        may_know: bool = True,
        pool: Pool | None = None,
    ) -> Ingested:
        """Append events in a transaction; `known` grows by the series that it commits."""
        known = set() if known is None else known
        with transaction(pool or self.pool, self.organization_id) as connection:
            ingested = ingest_in(
                connection,
                self.organization_id,
                events,
                revision,
                self.now,
                known,
                may_know=may_know,
            )
        known.update(ingested.series)
        return ingested

    def use(self, kind: str, time: datetime, subject: str | None, /, **data: Any) -> None:
        """Send one event that must be new."""
        assert ["accepted"] == self.send(self.event(kind, time, subject, **data))

    def fold(self, up_to: int | None = None) -> int:
        return fold_rollups(self.pool, self.organization_id, self.now, up_to=up_to)

    def bill(self, as_of: datetime, *, finalize: bool = True) -> BillingResult:
        return bill(
            self.pool,
            self.organization_id,
            new_id(),
            as_of,
            self.clock,
            new_id,
            finalize=finalize,
        )

    def invoices(self) -> list[InvoiceRow]:
        """Return all invoices, by number and then by subscription and period."""
        with transaction(self.pool, self.organization_id) as connection:
            found = invoice.invoices(connection, self.organization_id, limit=1000)
        return sorted(found, key=lambda row: (row.number or "", row.subscription_key, row.kind))

    def lines(self, row: InvoiceRow) -> Sequence[LineRow]:
        with transaction(self.pool, self.organization_id) as connection:
            return invoice.lines_of(connection, self.organization_id, row.invoice_id)

    def amounts(self, subscription: str, period_start: datetime) -> dict[str, str]:
        """Return the amounts of a subscription's usage invoice by line description."""
        (row,) = (
            one
            for one in self.invoices()
            if one.subscription_key == subscription
            and one.kind == "period"
            and one.period_start == period_start
        )
        found: dict[str, str] = {}
        for line in self.lines(row):
            name = line.description
            while name in found:
                name += "'"
            found[name] = str(line.amount)
        return found

    # Pools ---------------------------------------------------------------------------------------

    def pool_of(self, key: str, *, unit: str = "token", **fields: Any) -> UUID:
        """Open a pool, or change it; fields of its policy may be given as they are."""
        policy = {
            name: fields.pop(name) for name in list(fields) if name in Policy.__struct_fields__
        }
        definition = PoolDefinition(key=key, unit=unit, policy=Policy(**policy), **fields)
        done = put_pool(self.pool, self.organization_id, definition, self.now, new_id())
        assert isinstance(done, PutPool), done
        return done.pool_id

    def grant(self, pool_id: UUID, amount: str | int, **fields: Any) -> Grant:
        with transaction(self.pool, self.organization_id) as connection:
            asked = NewGrant(amount=Decimal(amount), **fields)
            done = grant_units(connection, self.organization_id, pool_id, asked, self.now)
        assert isinstance(done, Grant), done
        return done

    def ask(self, pool_id: UUID, *commands: Command) -> list[Outcome]:
        """Decide commands in one transaction with the pool locked."""
        asked = [Asked(pool_id, command) for command in commands]
        return decide_pools(self.pool, self.organization_id, asked, self.now)

    def draw(self, pool_id: UUID, amount: str | int, **fields: Any) -> Outcome:
        return self.ask(pool_id, Draw(amount=Decimal(amount), **fields))[0]

    def draw_id(self, pool_id: UUID, amount: str | int = 1, **fields: Any) -> str:
        """Draw units and return the draw's id, for the events that it pays for."""
        drawn = self.draw(pool_id, amount, **fields)
        assert isinstance(drawn, Answer), drawn
        return encode_numbered(Prefix.DRAW, pool_id, drawn.operation)


def days(count: int) -> timedelta:
    return timedelta(days=count)
