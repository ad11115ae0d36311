"""How far a pool may be used before there is anything to tell of it, seen from one look.

Until then a pool that is drawn from need not be looked at. Such use moves units from grants to use
and to holds, and back out of holds: what the period used, holds included, and what is available
come to the same together, or to less where a period turns. So do the levels at which a share of
that is used.
"""

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

from farebox.alerts.measure import Seen
from farebox.alerts.rule import AlertKind
from farebox.flows.raise_alerts import Raising, Rules
from farebox.flows.tell_pools import ANYTHING, LIMIT_NEAR_PERCENT, Look
from farebox.money.rounding import QUANTITY_DECIMALS, RoundingMode, exact_sum, round_to
from farebox.postgres.pool_watch import WatchRow

CALM_WAY = b"2"
"""Another one for each change of what is told without a rule, or of how levels are worked out."""


def calm_by(rules: Rules) -> UUID:
    """Return what a level is good for: these rules, and this way of working it out."""
    return rules.digest(CALM_WAY)


def calm_above(look: Look, moved: WatchRow, raising: Raising, rules: Rules) -> Decimal | None:
    """Return what a pool must have left for nothing to be told of its use.

    moved: its mark after the look. None where that cannot be said by what is left alone.
    """
    row, seen = look.row, look.seen
    told = moved.limit_near_period == row.counters.period
    if not look.current or moved.bursting or told or raising.firing or seen.beyond:
        return None
    least = max(_levels(look, rules), default=Decimal(0))
    return least if least <= row.available else None


def _levels(look: Look, rules: Rules) -> Iterator[Decimal]:
    if look.row.unlimited:
        return  # nothing runs out, and no share of anything is used
    if not look.row.refilled:
        yield ANYTHING
        yield _last_before(look.seen, LIMIT_NEAR_PERCENT)
    for one in rules.of(look.row):
        # The other kinds look at what is beyond the grants, or at the time.
        if one.rule.kind is AlertKind.BALANCE_BELOW:
            yield one.rule.threshold
        elif one.rule.kind is AlertKind.SHARE_USED_ABOVE:
            yield _last_before(look.seen, Fraction(one.rule.threshold))


def _last_before(seen: Seen, percent: Fraction) -> Decimal:
    """Return the least that a pool has left while less than `percent` is used."""
    had = Fraction(exact_sum([seen.used, seen.available]))
    # What is left when the share is just reached; it counts as reached then.
    reached = round_to(had - had * percent / 100, QUANTITY_DECIMALS, RoundingMode.UP)
    return exact_sum([reached, ANYTHING])
