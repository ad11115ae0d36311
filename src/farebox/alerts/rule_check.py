"""What can be wrong with an alert rule as it is asked for."""

from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum

from farebox.alerts.rule import FALLING, WINDOWED, AlertKind, AlertRule
from farebox.catalog.code import CatalogCode
from farebox.catalog.problem import Problem
from farebox.catalog.rule import key
from farebox.money.amount import EXPONENTS

WINDOW_MINUTES_MAX = 60 * 24 * 31
HOURS_MAX = 24 * 366 * 10
RULES_MAX = 1000
"""So many rules an organization may have: all of them are read at each look."""


class AlertCode(StrEnum):
    """Why an alert rule is not put, in order of precedence."""

    ALERT_SCOPE_CONTRADICTORY = "alert_scope_contradictory"
    UNKNOWN_POOL = "unknown_pool"
    THRESHOLD_OUT_OF_RANGE = "threshold_out_of_range"
    CLEAR_AT_WRONG_SIDE = "clear_at_wrong_side"
    WINDOW_OUT_OF_RANGE = "window_out_of_range"
    FIELD_NOT_OF_KIND = "field_not_of_kind"
    TOO_MANY_ALERT_RULES = "too_many_alert_rules"


def check_rule(rule: AlertRule) -> list[Problem]:
    """Return what is wrong with a rule in itself."""
    return [*key(rule.key, ""), *_scope(rule), *_levels(rule), *_fields(rule)]


def _scope(rule: AlertRule) -> Iterator[Problem]:
    if rule.pool is not None and rule.customer is not None:
        message = "a rule is for one pool or for all pools of a customer, not for both"
        yield Problem(AlertCode.ALERT_SCOPE_CONTRADICTORY, "/customer", message)


def _levels(rule: AlertRule) -> Iterator[Problem]:
    if rule.threshold <= 0:
        message = "a threshold is above zero"
        yield Problem(AlertCode.THRESHOLD_OUT_OF_RANGE, "/threshold", message)
    if rule.kind is AlertKind.GRANT_EXPIRES_WITHIN and rule.clears_at > HOURS_MAX:
        message = f"an expiry is told at most {HOURS_MAX} hours ahead"
        yield Problem(AlertCode.THRESHOLD_OUT_OF_RANGE, "/threshold", message)
    if rule.clear_at is None:
        return
    falling = rule.kind in FALLING
    wrong = rule.clear_at < rule.threshold if falling else rule.clear_at > rule.threshold
    if wrong or rule.clear_at <= 0:
        side = "not below it" if falling else "not above it"
        message = f"a rule that fires at its threshold clears {side}, and above zero"
        yield Problem(AlertCode.CLEAR_AT_WRONG_SIDE, "/clear_at", message)


def _fields(rule: AlertRule) -> Iterator[Problem]:
    window = rule.window_minutes
    if rule.kind in WINDOWED:
        if window is None or not 1 <= window <= WINDOW_MINUTES_MAX:
            message = f"{rule.kind.value} looks back over 1 to {WINDOW_MINUTES_MAX} minutes"
            yield Problem(AlertCode.WINDOW_OUT_OF_RANGE, "/window_minutes", message)
    elif window is not None:
        yield _not_of_kind(rule, "window_minutes")
    if rule.units is not None:
        if rule.kind is not AlertKind.GRANT_EXPIRES_WITHIN:
            yield _not_of_kind(rule, "units")
        elif rule.units <= Decimal(0):
            message = "so many units that must be left are above zero"
            yield Problem(AlertCode.THRESHOLD_OUT_OF_RANGE, "/units", message)
    if rule.currency is not None:
        if rule.kind is not AlertKind.SPEND_ABOVE:
            yield _not_of_kind(rule, "currency")
        elif rule.currency not in EXPONENTS:
            message = f"{rule.currency[:20]!r} is not an ISO 4217 currency with a minor unit"
            yield Problem(CatalogCode.UNKNOWN_CURRENCY, "/currency", message)


def _not_of_kind(rule: AlertRule, field: str) -> Problem:
    message = f"a rule of kind {rule.kind.value} has no {field}"
    return Problem(AlertCode.FIELD_NOT_OF_KIND, f"/{field}", message)
