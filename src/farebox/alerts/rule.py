"""Alert rules: what is watched, at which threshold it fires and at which it clears."""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct


class AlertKind(StrEnum):
    """What a rule watches of a pool; docs/alerts.md says how each is counted."""

    BALANCE_BELOW = "balance_below"
    SHARE_USED_ABOVE = "share_used_above"
    SPEND_ABOVE = "spend_above"
    OVERAGE_ABOVE = "overage_above"
    BURN_RATE_ABOVE = "burn_rate_above"
    RUNS_OUT_BEFORE = "runs_out_before"
    REFUSALS_ABOVE = "refusals_above"
    GRANT_EXPIRES_WITHIN = "grant_expires_within"


OF_BALANCE = frozenset(
    {
        AlertKind.BALANCE_BELOW,
        AlertKind.SHARE_USED_ABOVE,
        AlertKind.SPEND_ABOVE,
        AlertKind.OVERAGE_ABOVE,
    }
)
"""Kinds that only change when units move; the others change with time alone as well."""

OF_PERIOD = frozenset({AlertKind.SHARE_USED_ABOVE, AlertKind.SPEND_ABOVE, AlertKind.OVERAGE_ABOVE})
"""Kinds that count within a period, so that each period may cross anew."""

WINDOWED = frozenset(
    {AlertKind.BURN_RATE_ABOVE, AlertKind.RUNS_OUT_BEFORE, AlertKind.REFUSALS_ABOVE}
)
"""Kinds that look back over `window_minutes`."""

FALLING = frozenset(
    {AlertKind.BALANCE_BELOW, AlertKind.RUNS_OUT_BEFORE, AlertKind.GRANT_EXPIRES_WITHIN}
)
"""Kinds that fire when their value is too small; the others when it is too large."""


class AlertRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule for one pool, for all pools of a customer or, with neither, for all pools.

    threshold: units, percent, money, units an hour, hours or a count, as the kind has it.
    clear_at: where a rule that fired clears; none: at its threshold. window_minutes: how far back
    burn rates and refusals are counted. units: of an expiring grant, so many must be left.
    currency: only pools that have it.
    """

    key: str
    name: Annotated[str, Meta(max_length=200)] = ""
    kind: AlertKind
    threshold: Decimal
    clear_at: Decimal | None = None
    pool: str | None = None
    customer: str | None = None
    window_minutes: int | None = None
    units: Decimal | None = None
    currency: str | None = None
    enabled: bool = True
    metadata: Mapping[str, str] = {}

    @property
    def clears_at(self) -> Decimal:
        return self.threshold if self.clear_at is None else self.clear_at


def concerns(rule: AlertRule, pool: str, customer: str | None, currency: str | None) -> bool:
    """Whether a rule watches this pool now."""
    return (
        rule.enabled
        and rule.pool in (None, pool)
        and rule.customer in (None, customer)
        and rule.currency in (None, currency)
    )
