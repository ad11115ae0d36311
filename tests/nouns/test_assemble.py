"""Assembling an invoice: the order of its lines, its minimum, and a total that is their sum."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.catalog.plan import Charge, Fee, Plan, Timing
from farebox.catalog.price import Adjustments, PerUnit, Price
from farebox.invoicing.assemble import (
    InvoiceBody,
    InvoiceKind,
    InvoiceLineKind,
    RatedCharge,
    assemble,
)
from farebox.invoicing.pool_use import PoolUse, PoolUseKind
from farebox.money.amount import exponent_of
from farebox.period.cycle import Period
from farebox.rating.charge import Segment, rate_charge
from farebox.rating.usage import Usage

SEPTEMBER = Period(datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC))
OCTOBER = Period(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
MIDDLE = datetime(2026, 9, 15, tzinfo=UTC)
PLAN = Plan(
    key="basic",
    name="Basic",
    currency="EUR",
    fees=(
        Fee(key="base", name="Base fee", amount=Decimal("9.9")),
        Fee(key="support", amount=Decimal(5), timing=Timing.ARREARS),
    ),
    charges=(Charge(key="calls", meter="calls"), Charge(key="other", meter="other")),
)


def charge(
    key: str, *priced: tuple[str | None, str], currency: str = "EUR", minimum: str | None = None
) -> RatedCharge:
    """Rate a charge whose stretches, from one edge to the next, have a price and a quantity."""
    edges = [SEPTEMBER.start, *([MIDDLE] if len(priced) > 1 else []), SEPTEMBER.end]
    segments = [
        Segment(
            price=None if unit is None else PerUnit(unit=Decimal(unit)),
            usages=(Usage(quantity=Decimal(quantity)),),
            start=edges[place],
            end=edges[place + 1],
        )
        for place, (unit, quantity) in enumerate(priced)
    ]
    adjustments = Adjustments(minimum=None if minimum is None else Decimal(minimum))
    result = rate_charge(key, segments, adjustments, currency)
    prices: dict[datetime, Price | None] = {one.start: one.price for one in segments if one.start}
    return RatedCharge(key, "", key, result, prices)


def shown(body: InvoiceBody) -> list[tuple[str, str, str]]:
    return [(line.kind.value, line.description, str(line.amount)) for line in body.lines]


def test_the_start_holds_the_fees_in_advance() -> None:
    body = assemble(PLAN, InvoiceKind.START, SEPTEMBER, None, [])
    assert [("fee", "Base fee", "9.90")] == shown(body)
    assert ("EUR", "9.90") == (body.currency, str(body.total))
    assert (SEPTEMBER.start, SEPTEMBER.end) == (body.lines[0].start, body.lines[0].end)


def test_a_period_holds_what_it_was_and_the_fees_of_the_next() -> None:
    charges = [charge("calls", ("0.1", "7")), charge("other", ("2", "3"))]
    body = assemble(PLAN, InvoiceKind.PERIOD, SEPTEMBER, OCTOBER, charges)
    assert [
        ("fee", "support", "5.00"),
        ("fee", "Base fee", "9.90"),
        ("usage", "calls", "0.70"),
        ("usage", "other", "6.00"),
    ] == shown(body)
    assert "21.60" == str(body.total)
    assert [SEPTEMBER.start, OCTOBER.start] == [line.start for line in body.lines[:2]]


def test_the_last_period_has_no_fee_in_advance() -> None:
    body = assemble(PLAN, InvoiceKind.PERIOD, SEPTEMBER, None, [])
    assert [("fee", "support", "5.00")] == shown(body)


def test_a_line_carries_the_price_of_its_own_stretch() -> None:
    body = assemble(
        PLAN, InvoiceKind.PERIOD, SEPTEMBER, None, [charge("calls", ("1", "2"), ("3", "4"))]
    )
    lines = [line for line in body.lines if line.kind is InvoiceLineKind.USAGE]
    assert [
        (SEPTEMBER.start, MIDDLE, "2.00", PerUnit(unit=Decimal(1))),
        (MIDDLE, SEPTEMBER.end, "12.00", PerUnit(unit=Decimal(3))),
    ] == [(line.start, line.end, str(line.amount), line.detail.price) for line in lines]


def test_what_has_no_price_is_listed_and_costs_nothing() -> None:
    body = assemble(PLAN, InvoiceKind.PERIOD, SEPTEMBER, None, [charge("calls", (None, "7"))])
    assert [Decimal(7)] == [one.usage.quantity for one in body.unpriced]
    assert "5.00" == str(body.total)


@pytest.mark.parametrize(
    ("minimum", "units", "expected"),
    [
        ("10", "3", [("usage", "3.00"), ("plan_minimum", "7.00")]),
        ("10", "10", [("usage", "10.00")]),
        ("10", "11", [("usage", "11.00")]),
        ("0", "0", [("usage", "0.00")]),
        ("10", "0", [("usage", "0.00"), ("plan_minimum", "10.00")]),
    ],
)
def test_the_plan_minimum_counts_usage_only(
    minimum: str, units: str, expected: list[tuple[str, str]]
) -> None:
    plan = Plan(key="p", currency="EUR", fees=PLAN.fees, minimum=Decimal(minimum))
    body = assemble(plan, InvoiceKind.PERIOD, SEPTEMBER, OCTOBER, [charge("calls", ("1", units))])
    assert expected == [(kind, amount) for kind, _, amount in shown(body) if kind != "fee"]


def test_a_charge_minimum_counts_towards_the_plan_minimum() -> None:
    plan = Plan(key="p", currency="EUR", minimum=Decimal(10))
    body = assemble(
        plan, InvoiceKind.PERIOD, SEPTEMBER, None, [charge("calls", ("1", "2"), minimum="6")]
    )
    assert [
        ("usage", "calls", "2.00"),
        ("minimum", "calls: minimum", "4.00"),
        ("plan_minimum", "p: minimum usage", "4.00"),
    ] == shown(body)


def test_an_invoice_of_nothing_is_zero_in_its_currency() -> None:
    for currency, zero in (("JPY", "0"), ("EUR", "0.00"), ("KWD", "0.000")):
        plan = Plan(key="p", currency=currency)
        body = assemble(plan, InvoiceKind.PERIOD, SEPTEMBER, OCTOBER, [])
        assert ((), zero) == (body.lines, str(body.total))


AMOUNTS = st.decimals(min_value=0, max_value=10**9, places=6)


@given(
    currency=st.sampled_from(["JPY", "EUR", "KWD"]),
    fees=st.lists(st.tuples(AMOUNTS, st.sampled_from(Timing)), max_size=3),
    usage=st.lists(st.tuples(AMOUNTS, AMOUNTS), max_size=4),
    minimum=st.none() | AMOUNTS,
    goes_on=st.booleans(),
)
def test_the_total_is_the_sum_of_lines_in_whole_units_of_the_currency(
    currency: str,
    fees: list[tuple[Decimal, Timing]],
    usage: list[tuple[Decimal, Decimal]],
    minimum: Decimal | None,
    goes_on: bool,
) -> None:
    plan = Plan(
        key="p",
        currency=currency,
        fees=tuple(Fee(key=f"f{n}", amount=a, timing=t) for n, (a, t) in enumerate(fees)),
        minimum=minimum,
    )
    charges = [
        charge(f"c{n}", (str(unit), str(quantity)), currency=currency)
        for n, (unit, quantity) in enumerate(usage)
    ]
    following = OCTOBER if goes_on else None
    body = assemble(plan, InvoiceKind.PERIOD, SEPTEMBER, following, charges)
    assert body.total == sum(line.amount for line in body.lines)
    digits = {-exponent_of(currency)}
    assert digits == {body.total.as_tuple().exponent}
    assert {line.amount.as_tuple().exponent for line in body.lines} <= digits
    charged = sum(line.amount for line in body.lines if line.kind is not InvoiceLineKind.FEE)
    half = Decimal(1).scaleb(-exponent_of(currency)) / 2
    assert minimum is None or charged >= minimum - half


def use_of_pool(kind: PoolUseKind, price: str | None, **fields: Any) -> PoolUse:
    return PoolUse(
        pool="chat",
        name="Chat tokens",
        unit="token",
        kind=kind,
        quantity=Decimal(40),
        price=None if price is None else Decimal(price),
        first_at=MIDDLE,
        last_at=MIDDLE,
        **fields,
    )


def test_lines_of_a_pool_are_told_apart_by_their_price() -> None:
    """Those that were written before say what they said then, so that they replay."""
    uses = (
        use_of_pool(PoolUseKind.OVERAGE, "0.0150", upto=7),
        use_of_pool(PoolUseKind.OVERAGE, "2", upto=7),
        use_of_pool(PoolUseKind.BURST, "0.02", upto=7),
        use_of_pool(PoolUseKind.OVERAGE, None, upto=7),
        use_of_pool(PoolUseKind.OVERAGE, "0.0150"),
        use_of_pool(PoolUseKind.BURST, "0.02"),
    )
    plain = Plan(key="plain", currency="EUR")
    body = assemble(plain, InvoiceKind.PERIOD, SEPTEMBER, None, [], uses)
    assert [
        "Chat tokens: overage at 0.015 EUR per token",
        "Chat tokens: overage at 2 EUR per token",
        "Chat tokens: burst at 0.02 EUR per token",
        "Chat tokens: overage without a price",
        "Chat tokens: overage",
        "Chat tokens: burst",
    ] == [line.description for line in body.lines]
