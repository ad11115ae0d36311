"""The upcoming invoice: the period under way so far, rated by the rules of the final one."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from farebox.flows.due_periods import upcoming
from farebox.flows.post_due import post_due
from farebox.flows.rate_periods import Due, rate_periods, read_terms
from farebox.invoicing.assemble import InvoiceBody
from farebox.postgres import customer, stream
from farebox.postgres.pool_subscription import pools_of_subscriptions
from farebox.postgres.session import Pool, transaction


class PreviewCode(StrEnum):
    """Why a subscription has no upcoming invoice, in order of precedence."""

    UNKNOWN_SUBSCRIPTION = "unknown_subscription"
    SUBSCRIPTION_NOT_STARTED = "subscription_not_started"
    SUBSCRIPTION_ENDED = "subscription_ended"


class Preview(Struct, frozen=True):
    """The invoice as it would be if the period ended with the event at `sequence`."""

    due: Due
    body: InvoiceBody
    sequence: int


def preview_invoice(
    pool: Pool, organization_id: UUID, subscription_key: str, now: datetime
) -> Preview | PreviewCode:
    """Rate the period under way at `now`. Usage counts up to `now`, fees and minimums are whole."""
    with transaction(pool, organization_id) as connection:
        pools = pools_of_subscriptions(connection, organization_id, [subscription_key])
    post_due(pool, organization_id, [pool_id for _, pool_id, _ in pools], now)
    with transaction(pool, organization_id, snapshot=True) as connection:
        row = customer.find_subscription(connection, organization_id, subscription_key)
        if row is None:
            return PreviewCode.UNKNOWN_SUBSCRIPTION
        if now < row.starts_at:
            return PreviewCode.SUBSCRIPTION_NOT_STARTED
        terms = read_terms(connection, organization_id)
        due = upcoming(row, terms.plans[row.plan_key, row.plan_version], now)
        if due is None:
            return PreviewCode.SUBSCRIPTION_ENDED
        # A level (GB-hours) must not be carried on to a month's end that has not come yet; and
        # at its first instant the period is as short as time is kept.
        due = replace(due, until=max(now, due.period.start + datetime.resolution))
        (body,) = rate_periods(connection, organization_id, terms, [due])
        sequence = stream.read_head(connection, organization_id).last_sequence
    return Preview(due, body, sequence)
