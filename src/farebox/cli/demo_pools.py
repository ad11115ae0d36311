"""The demo's prepaid pools: what customers may use, drawn at the times at which the trace used it.

The draws are decided by the ledger one after the other, each at its own time, and written at once.
They take nothing from what is metered and billed: no subscription is billed for these pools.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection
from whenever import Date

from farebox.catalog.customer import Customer
from farebox.cli.example import example_catalog, examples_directory
from farebox.flows.put_pool import PutPool, put_pool
from farebox.flows.read_pool_usage import PoolUse, UsageBy, read_pool_usage
from farebox.flows.share_pool import Share, Shared, share_pool
from farebox.ledger.administer import NewGrant, NewRecurrence, add_grant, add_recurrence
from farebox.ledger.book import Book
from farebox.ledger.command import Draw
from farebox.ledger.decide import apply
from farebox.ledger.grant import Basis, Grant, GrantStatus, Recurrence, Rollover
from farebox.ledger.policy import Limit, LimitMode, Policy, Renewal
from farebox.ledger.pool import PoolDefinition
from farebox.ledger.refusal import Refusal
from farebox.money.rounding import exact, exact_sum
from farebox.period.calendar import start_of_day
from farebox.period.cycle import Unit
from farebox.postgres.book import list_grants, read_books
from farebox.postgres.pool import find_pool
from farebox.postgres.posting import Posting, Refused, post_call, posted
from farebox.postgres.session import Pool, transaction

_MONTHLY = Renewal(unit=Unit.MONTH, anchor_day=1)
_FIELDS = ("input_tokens", "cached_input_tokens", "output_tokens")
_MILLION = Decimal(1_000_000)


class Offer(Struct, frozen=True, kw_only=True):
    """What a customer bought: millions of tokens that come each month, or that are bought for it.

    shares: for people and programs of the customer, see `Share`.
    """

    name: str
    policy: Policy
    recurring: Decimal | None = None
    renewal: Renewal = _MONTHLY
    rollover: Rollover | None = None
    bought: Decimal | None = None
    cost: Decimal | None = None
    shares: Sequence[Share] = ()


def _share(key: str, guarantee: int = 0, cap: int | None = None, **fields: Any) -> Share:
    return Share(
        key=key,
        guarantee=guarantee * _MILLION,
        cap=None if cap is None else cap * _MILLION,
        **fields,
    )


OFFERS: Mapping[str, Offer] = {
    "northwind": Offer(
        name="Northwind tokens",
        policy=Policy(currency="USD", renewal=_MONTHLY),
        recurring=Decimal(10),
        rollover=Rollover(percent=Decimal(50)),
        bought=Decimal(60),
        cost=Decimal(180),
        shares=(
            _share("engineering", 20, 45),
            _share("ada", 10, 25, parent="engineering", subjects=("ada@northwind.example",)),
            _share("grace", 5, 30, parent="engineering", subjects=("grace@northwind.example",)),
            _share("factory", 15, subjects=("line-3@northwind.example",)),
        ),
    ),
    "kestrel-games": Offer(
        name="Kestrel tokens, weekly",
        policy=Policy(renewal=Renewal(unit=Unit.WEEK)),
        recurring=Decimal(6),
        renewal=Renewal(unit=Unit.WEEK),
        shares=(
            _share("yuki", 2, subjects=("yuki@kestrel.example",)),
            _share("dialogue", 2, subjects=("dialogue@kestrel.example",)),
        ),
    ),
    "papaya-travel": Offer(
        name="Papaya tokens",
        policy=Policy(
            currency="USD",
            renewal=_MONTHLY,
            limit=Limit(mode=LimitMode.OVERAGE, price=Decimal("0.0000025"), spend_cap=Decimal(50)),
        ),
        recurring=Decimal(10),
    ),
    "tamarind-labs": Offer(
        name="Tamarind tokens",
        policy=Policy(
            currency="USD",
            renewal=_MONTHLY,
            limit=Limit(mode=LimitMode.OVERDRAFT, units=2 * _MILLION),
        ),
        bought=Decimal(9),
        cost=Decimal("31.50"),
    ),
}


class PoolFindings(Struct, frozen=True, kw_only=True):
    """A pool over last month in its customer's time zone, in tokens."""

    customer: str
    pool: str
    granted: Decimal
    use: PoolUse


def prepare_pools(
    connections: Pool,
    organization_id: UUID,
    month: datetime,
    events: Sequence[dict[str, Any]],
    now: datetime,
    new_id: Callable[[], UUID],
) -> None:
    """Open the pools and live through last month and this one up to now; again changes nothing."""
    customers = _customers()
    for key, offer in OFFERS.items():
        payer = customers[key]
        opened = _month_start(month, 0, payer.timezone)
        definition = PoolDefinition(
            key=_key(key), name=offer.name, unit="token", customer=key, policy=offer.policy
        )
        done = put_pool(connections, organization_id, definition, opened, new_id())
        assert isinstance(done, PutPool), done
        with transaction(connections, organization_id) as connection:
            _live(connection, organization_id, done.pool_id, offer, payer, month, events, now)


def pool_findings(connections: Pool, organization_id: UUID, month: datetime) -> list[PoolFindings]:
    """Return what each pool was granted and gave last month."""
    found, customers = [], _customers()
    with transaction(connections, organization_id, snapshot=True) as connection:
        for key in OFFERS:
            timezone = customers[key].timezone
            since, until = (_month_start(month, ahead, timezone) for ahead in (0, 1))
            row = find_pool(connection, organization_id, key=_key(key))
            assert row is not None, "the demo has made it"
            use = read_pool_usage(
                connection,
                organization_id,
                row.pool_id,
                timezone,
                UsageBy.SUBJECT,
                since,
                until,
            )
            assert isinstance(use, PoolUse)
            granted = exact_sum(
                one.amount
                for one in list_grants(connection, organization_id, row.pool_id, limit=1000)
                if since <= one.issued_at < until
                and one.status is not GrantStatus.PENDING
                and one.basis is not Basis.ROLLED_OVER
            )
            found.append(PoolFindings(customer=key, pool=row.key, granted=granted, use=use))
    return found


def _customers() -> dict[str, Customer]:
    catalog = example_catalog(examples_directory() / "llm")
    return {one.key: one for one in catalog.customers}


def _key(customer_key: str) -> str:
    return f"{customer_key}-tokens"


def _month_start(month: datetime, ahead: int, timezone: str) -> datetime:
    return start_of_day(Date(month.year, month.month, 1).add(months=ahead), timezone)


def _live(
    connection: Connection,
    organization_id: UUID,
    pool_id: UUID,
    offer: Offer,
    payer: Customer,
    month: datetime,
    events: Sequence[dict[str, Any]],
    now: datetime,
) -> None:
    """Let a pool that nothing happened to yet live through its months, in one commit."""
    (stated,) = read_books(connection, organization_id, [pool_id], lock=True).values()
    if stated.sequence:
        return
    opened = stated.book.pool.opened_at
    if offer.shares:
        done = share_pool(connection, organization_id, pool_id, offer.shares, opened)
        assert isinstance(done, Shared), done
        (stated,) = read_books(connection, organization_id, [pool_id], lock=True).values()
    starts = [_month_start(month, ahead, payer.timezone) for ahead in (0, 1)]
    subjects = set(payer.subjects)
    mine = [one for one in events if one["subject"] in subjects]
    draws = heapq.merge(
        _hourly(mine, timedelta(0)),
        _hourly(mine, datetime(*_next(month), tzinfo=UTC) - month),
        key=lambda one: one[0],
    )
    with exact():
        _recur(stated.book, offer, opened)
        refused = _go_on(stated.book, pool_id, offer, starts, draws, now)
        _order_more(stated.book, offer, now)
    posting = Posting(
        pool_id, stated.version, stated.book.changes(), stated.book.next_due, stated.sequence + 1
    )
    statement, parameters = post_call(organization_id, [posting], refused=refused)
    written = posted(connection.execute(statement, parameters).fetchone())
    assert written, "nobody else changes a pool that is locked"


def _next(month: datetime) -> tuple[int, int, int]:
    return (month.year + month.month // 12, month.month % 12 + 1, 1)


def _hourly(
    events: Sequence[dict[str, Any]], moved: timedelta
) -> Iterator[tuple[datetime, str, Decimal]]:
    """Yield what each subject used in each hour of the trace, when the first of it was used."""
    hours: dict[tuple[str, str], tuple[datetime, int]] = {}
    for event in events:
        place = event["time"][:13], event["subject"]
        tokens = sum(event["data"][field] for field in _FIELDS)
        if place in hours:
            begun, before = hours[place]
            hours[place] = begun, before + tokens
        else:
            hours[place] = datetime.fromisoformat(event["time"]), tokens
    for (_, subject), (begun, tokens) in hours.items():
        yield begun + moved, subject, Decimal(tokens)


def _recur(book: Book, offer: Offer, opened: datetime) -> None:
    if offer.recurring is None:
        return
    asked = NewRecurrence(
        key="included",
        amount=offer.recurring * _MILLION,
        renewal=offer.renewal,
        rollover=offer.rollover,
        priority=-1,
    )
    assert isinstance(add_recurrence(book, asked, opened), Recurrence)


def _go_on(
    book: Book,
    pool_id: UUID,
    offer: Offer,
    starts: Sequence[datetime],
    draws: Iterator[tuple[datetime, str, Decimal]],
    now: datetime,
) -> list[Refused]:
    """Buy and draw at their times, and return what was refused."""
    refused: list[Refused] = []
    open_of: dict[str, list[int]] = {}
    waiting = [start for start in starts if start <= now]
    for time, subject, amount in draws:
        if time > now:
            break
        while waiting and waiting[0] <= time:
            _buy(book, offer, waiting.pop(0))
        outcome = apply(book, Draw(amount=amount, subject=subject), time)
        if isinstance(outcome, Refusal):
            open_of.setdefault(subject, []).append(len(refused))
            refused.append(_refused(pool_id, subject, outcome, time, amount))
        else:
            for place in open_of.pop(subject, ()):
                refused[place] = msgspec.structs.replace(refused[place], resolved_at=outcome.time)
    for start in waiting:
        _buy(book, offer, max(start, book.pool.as_of))
    return refused


def _buy(book: Book, offer: Offer, time: datetime) -> None:
    if offer.bought is None:
        return
    asked = NewGrant(
        key=f"order-{time + timedelta(days=1):%Y-%m}",
        amount=offer.bought * _MILLION,
        basis=Basis.PURCHASED,
        cost=offer.cost,
        expires_at=time + timedelta(days=180),
    )
    assert isinstance(add_grant(book, asked, time), Grant)


def _order_more(book: Book, offer: Offer, now: datetime) -> None:
    """Leave an order that waits to be paid, for somebody to say so."""
    if offer.bought is None or not offer.shares:
        return
    asked = NewGrant(
        key="order-next",
        amount=offer.bought * _MILLION,
        basis=Basis.PURCHASED,
        cost=offer.cost,
        pending=True,
        pay_by=now + timedelta(days=30),
    )
    assert isinstance(add_grant(book, asked, now), Grant)


def _refused(
    pool_id: UUID, subject: str, refusal: Refusal, time: datetime, amount: Decimal
) -> Refused:
    return Refused(
        pool_id,
        subject,
        refusal.code,
        time.replace(second=0, microsecond=0),
        1,
        time,
        time,
        amount,
        refusal.left,
        refusal.refills_at,
    )
