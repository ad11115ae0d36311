"""Which periods of a subscription are to be invoiced by an instant."""

from collections.abc import Mapping
from datetime import datetime

from farebox.catalog.plan import Plan, Timing
from farebox.flows.rate_periods import Due
from farebox.invoicing.assemble import InvoiceKind
from farebox.period.cycle import Cycle, Period, Unit, index_at, period_at
from farebox.postgres.customer import SubscriptionRow


def cycle_of(subscription: SubscriptionRow, plan: Plan) -> Cycle:
    """Return the billing periods of a subscription, without regard to its end."""
    return Cycle(
        unit=Unit(plan.interval.value),
        count=plan.interval_count,
        start=subscription.starts_at,
        anchor_day=subscription.anchor_day,
        timezone=subscription.timezone,
    )


def due_periods(
    subscription: SubscriptionRow,
    plan: Plan,
    as_of: datetime,
    invoiced: Mapping[tuple[str, str], datetime],
) -> list[Due]:
    """Return what is due by `as_of` and has no final invoice, oldest first.

    invoiced: the start of the last final period, by subscription and kind; periods are invoiced in
    order, so those up to it are done.
    """
    dues: list[Due] = []
    cycle = cycle_of(subscription, plan)
    starts = subscription.starts_at
    if (
        starts <= as_of
        and (subscription.key, InvoiceKind.START.value) not in invoiced
        and any(fee.timing is Timing.ADVANCE for fee in plan.fees)
    ):
        dues.append(Due(subscription, InvoiceKind.START, period_at(cycle, 0), None))
    last = invoiced.get((subscription.key, InvoiceKind.PERIOD.value))
    index = 0 if last is None else (index_at(cycle, last) or 0) + 1
    while (due := due_at(subscription, cycle, index)) is not None and due.period.end <= as_of:
        if due.period.start < due.period.end:  # a day that a zone left out is no period
            dues.append(due)
        index += 1
    return dues


def due_at(subscription: SubscriptionRow, cycle: Cycle, index: int) -> Due | None:
    """Return the period with this number, cut at the subscription's end; None beyond the end."""
    period = period_at(cycle, index)
    ends = subscription.ends_at
    if ends is not None and period.start >= ends:
        return None
    following = _following(cycle, index)
    if ends is not None and ends <= period.end:
        return Due(subscription, InvoiceKind.PERIOD, Period(period.start, ends), None)
    return Due(subscription, InvoiceKind.PERIOD, period, following)


def _following(cycle: Cycle, index: int) -> Period:
    period = period_at(cycle, index + 1)
    return period if period.start < period.end else _following(cycle, index + 1)


def upcoming(subscription: SubscriptionRow, plan: Plan, at: datetime) -> Due | None:
    """Return the period under way at an instant, to be invoiced at its end; None outside."""
    cycle = cycle_of(subscription, plan)
    index = index_at(cycle, at)
    if index is None or (subscription.ends_at is not None and subscription.ends_at <= at):
        return None
    return due_at(subscription, cycle, index)
