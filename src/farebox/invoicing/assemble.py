"""Put an invoice together: fees, rated charges and the plan's minimum become lines and a total."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from msgspec import UNSET, Struct

from farebox.catalog.number import plain_text
from farebox.catalog.plan import Fee, Plan, Timing
from farebox.catalog.price import Price
from farebox.invoicing.pool_use import PoolUse, PoolUseKind, amount_of
from farebox.money.amount import to_currency
from farebox.money.rounding import EXACT
from farebox.period.cycle import Period
from farebox.rating.charge import ChargeLine, ChargeResult, LineKind, UnpricedUsage


class InvoiceKind(StrEnum):
    """Why an invoice is written: a subscription began, or one of its periods ended."""

    START = "start"
    PERIOD = "period"


class InvoiceLineKind(StrEnum):
    """What a line charges for."""

    FEE = "fee"
    USAGE = "usage"
    MINIMUM = "minimum"
    PLAN_MINIMUM = "plan_minimum"
    PURCHASE = "purchase"
    REFUND = "refund"
    OVERAGE = "overage"
    BURST = "burst"


class LineDetail(Struct, frozen=True):
    """All that explains a line and rates it again: the rated charge and its price, or the pool."""

    charge: ChargeLine | None = None
    price: Price | None = None
    timing: Timing | None = None
    pool: PoolUse | None = None


class InvoiceLine(Struct, frozen=True, kw_only=True):
    """One line; `amount` has exactly the currency's decimals."""

    charge_key: str
    kind: InvoiceLineKind
    description: str
    quantity: Decimal | None
    amount: Decimal
    start: datetime
    end: datetime
    meter_key: str | None = None
    detail: LineDetail = LineDetail()


class InvoiceBody(Struct, frozen=True):
    """What an invoice states: the lines, their sum, and the usage it could not price."""

    currency: str
    lines: tuple[InvoiceLine, ...]
    total: Decimal
    unpriced: tuple[UnpricedUsage, ...]


class RatedCharge(Struct, frozen=True):
    """A charge of the plan with what it came to, and the price of each of its segments."""

    key: str
    name: str
    meter_key: str
    result: ChargeResult
    prices: Mapping[datetime, Price | None]


def assemble(
    plan: Plan,
    kind: InvoiceKind,
    period: Period,
    following: Period | None,
    charges: Sequence[RatedCharge],
    pools: Sequence[PoolUse] = (),
) -> InvoiceBody:
    """Return the invoice of `period`: fees, usage in the plan's order, minimums, then pools.

    A START invoice holds the first period's fees in advance. A PERIOD invoice holds the fees in
    arrears and the usage of the period that ended, and the fees in advance of `following`, where
    the subscription goes on. Fees are whole: part of a period costs as much as all of it.
    """
    lines: list[InvoiceLine] = []
    unpriced: list[UnpricedUsage] = []
    if kind is InvoiceKind.START:
        lines += _fees(plan, Timing.ADVANCE, period)
    else:
        lines += _fees(plan, Timing.ARREARS, period)
        if following is not None:
            lines += _fees(plan, Timing.ADVANCE, following)
        usage = [line for charge in charges for line in _usage_lines(charge, period)]
        lines += usage
        lines += _plan_minimum(plan, usage, period)
        lines += [_pool_line(one, plan.currency, period) for one in pools]
        unpriced = [one for charge in charges for one in charge.result.unpriced]
    return InvoiceBody(plan.currency, tuple(lines), _sum(lines, plan.currency), tuple(unpriced))


def _fees(plan: Plan, timing: Timing, period: Period) -> list[InvoiceLine]:
    return [_fee(fee, plan.currency, period) for fee in plan.fees if fee.timing is timing]


def _fee(fee: Fee, currency: str, period: Period) -> InvoiceLine:
    return InvoiceLine(
        charge_key=fee.key,
        kind=InvoiceLineKind.FEE,
        description=fee.name or fee.key,
        quantity=None,
        amount=to_currency(fee.amount, currency),
        start=period.start,
        end=period.end,
        detail=LineDetail(timing=fee.timing),
    )


def _usage_lines(charge: RatedCharge, period: Period) -> list[InvoiceLine]:
    lines = []
    for line in charge.result.lines:
        start, end = line.start or period.start, line.end or period.end
        name = charge.name or charge.key
        minimum = line.kind is LineKind.MINIMUM
        lines.append(
            InvoiceLine(
                charge_key=charge.key,
                kind=InvoiceLineKind.MINIMUM if minimum else InvoiceLineKind.USAGE,
                description=f"{name}: minimum" if minimum else name,
                quantity=None if minimum else line.quantity,
                amount=line.amount,
                start=start,
                end=end,
                meter_key=charge.meter_key,
                detail=LineDetail(line, None if minimum else charge.prices.get(start)),
            )
        )
    return lines


def _plan_minimum(plan: Plan, usage: Sequence[InvoiceLine], period: Period) -> list[InvoiceLine]:
    if plan.minimum is None:
        return []
    missing = EXACT.subtract(to_currency(plan.minimum, plan.currency), _sum(usage, plan.currency))
    if missing <= 0:
        return []
    return [
        InvoiceLine(
            charge_key=plan.key,
            kind=InvoiceLineKind.PLAN_MINIMUM,
            description=f"{plan.name or plan.key}: minimum usage",
            quantity=None,
            amount=missing,
            start=period.start,
            end=period.end,
        )
    ]


def _pool_line(use: PoolUse, currency: str, period: Period) -> InvoiceLine:
    what = {
        PoolUseKind.PURCHASE: f"{use.quantity:f} {use.unit} bought",
        PoolUseKind.REFUND: f"{-use.quantity:f} {use.unit} taken back",
        PoolUseKind.OVERAGE: f"overage{_at_price(use, currency)}",
        PoolUseKind.BURST: f"burst{_at_price(use, currency)}",
    }[use.kind]
    return InvoiceLine(
        charge_key=use.pool,
        kind=InvoiceLineKind(use.kind.value),
        description=f"{use.name or use.pool}: {what}",
        quantity=use.quantity,
        amount=amount_of(use, currency),
        start=period.start,
        end=period.end,
        detail=LineDetail(pool=use),
    )


def _at_price(use: PoolUse, currency: str) -> str:
    """Return what tells lines of one pool apart; lines of before did without."""
    if use.upto is UNSET:
        return ""
    if use.price is None:
        return " without a price"
    return f" at {plain_text(use.price)} {currency} per {use.unit}"


def _sum(lines: Sequence[InvoiceLine], currency: str) -> Decimal:
    total = to_currency(Decimal(0), currency)
    for line in lines:
        total = EXACT.add(total, line.amount)
    return total
