"""How alert rules and what they measure read on a page."""

from collections.abc import Mapping
from decimal import Decimal

from farebox.alerts.rule import AlertKind, AlertRule
from farebox.http.pages.format import money, quantity
from farebox.money.amount import EXPONENTS

KINDS: Mapping[AlertKind, str] = {
    AlertKind.BALANCE_BELOW: "Fewer units available",
    AlertKind.SHARE_USED_ABOVE: "Percent of the period used or held",
    AlertKind.SPEND_ABOVE: "Cost of overage and burst in the period",
    AlertKind.OVERAGE_ABOVE: "Units of overage in the period",
    AlertKind.BURN_RATE_ABOVE: "Units used an hour",
    AlertKind.RUNS_OUT_BEFORE: "Hours until it is empty at the present rate",
    AlertKind.REFUSALS_ABOVE: "Refusals",
    AlertKind.GRANT_EXPIRES_WITHIN: "Hours until a grant expires",
}
"""What the form offers, each with what its threshold counts."""


def measured(kind: str, value: Decimal | None, unit: str, currency: str | None) -> str:
    """Return a number of a rule with what it counts."""
    text = quantity(value)
    match AlertKind(kind):
        case AlertKind.BALANCE_BELOW | AlertKind.OVERAGE_ABOVE:
            return f"{text} {unit}"
        case AlertKind.SHARE_USED_ABOVE:
            return f"{text}\u00a0%"
        case AlertKind.SPEND_ABOVE:
            return money(value, currency) if currency in EXPONENTS and currency else text
        case AlertKind.BURN_RATE_ABOVE:
            return f"{text} {unit} an hour"
        case AlertKind.RUNS_OUT_BEFORE | AlertKind.GRANT_EXPIRES_WITHIN:
            return f"{text} hours"
        case AlertKind.REFUSALS_ABOVE:
            return f"{text} refusals"


def condition(rule: AlertRule) -> str:
    """Return when a rule fires and clears, as a sentence without its end."""
    level = measured(rule.kind, rule.threshold, "units", rule.currency)
    match rule.kind:
        case AlertKind.BALANCE_BELOW:
            text = f"Fewer than {level} are available"
        case AlertKind.SHARE_USED_ABOVE:
            text = f"{level} of what the period had are used or held"
        case AlertKind.SPEND_ABOVE:
            text = f"Overage and burst cost {level} in the period"
        case AlertKind.OVERAGE_ABOVE:
            text = f"{level} of overage in the period"
        case AlertKind.BURN_RATE_ABOVE:
            text = f"{level} over {_window(rule)}"
        case AlertKind.RUNS_OUT_BEFORE:
            text = f"Empty in less than {level} at the rate of {_window(rule)}"
        case AlertKind.REFUSALS_ABOVE:
            text = f"{level} in {_window(rule)}"
        case AlertKind.GRANT_EXPIRES_WITHIN:
            left = "" if rule.units is None else f" with {quantity(rule.units)} units or more"
            text = f"A grant{left} expires in less than {level}"
    if rule.clear_at is None:
        return text
    return f"{text}; clears at {measured(rule.kind, rule.clear_at, 'units', rule.currency)}"


def _window(rule: AlertRule) -> str:
    minutes = rule.window_minutes or 0
    if minutes % 1440 == 0:
        return "the last day" if minutes == 1440 else f"the last {minutes // 1440} days"
    if minutes % 60 == 0:
        return "the last hour" if minutes == 60 else f"the last {minutes // 60} hours"
    return f"the last {minutes} minutes"


def scope(rule: AlertRule) -> str:
    """Return which pools a rule watches, where that is not one pool or customer to link to."""
    if rule.currency is not None:
        return f"all pools in {rule.currency}"
    return "all pools"
