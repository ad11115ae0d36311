"""What can be wrong with a pool, a grant or shares as they are asked for."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum

from farebox.catalog.code import CatalogCode
from farebox.catalog.number import plain_text
from farebox.catalog.problem import Problem
from farebox.catalog.rule import KEY, SUBJECT_LENGTH_MAX, UNIT, key, timezone
from farebox.ledger.account import ZERO
from farebox.ledger.administer import NewGrant, NewRecurrence
from farebox.ledger.allotment import Allotment
from farebox.ledger.policy import BurnBy, Limit, LimitMode, Policy
from farebox.ledger.pool import PoolDefinition
from farebox.ledger.refusal import RefusalCode
from farebox.money.amount import EXPONENTS

SECONDS_MAX = 86_400 * 366 * 10
TIMES_MAX = SECONDS_MAX  # more than one a second buys nothing for anybody


class PoolCode(StrEnum):
    """Why a pool, its grants or its shares are refused, in order of precedence."""

    UNIT_INVALID = "unit_invalid"
    POOL_FIXED = "pool_fixed"
    LICENSE_UNKNOWN = "license_unknown"
    SUBSCRIPTION_UNKNOWN = "subscription_unknown"
    RATE_CARD_UNIT = "rate_card_unit"
    CURRENCY_MISSING = "currency_missing"
    AMOUNT_NOT_POSITIVE = "amount_not_positive"
    AMOUNT_NEGATIVE = "amount_negative"
    SECONDS_OUT_OF_RANGE = "seconds_out_of_range"
    TIMES_OUT_OF_RANGE = "times_out_of_range"
    LIMIT_CONTRADICTORY = "limit_contradictory"
    REFILL_CONTRADICTORY = "refill_contradictory"
    BURN_ORDER_INVALID = "burn_order_invalid"
    RENEWAL_INVALID = "renewal_invalid"
    ROLLOVER_INVALID = "rollover_invalid"
    ALLOTMENT_PARENT_UNKNOWN = "allotment_parent_unknown"
    ALLOTMENT_CYCLE = "allotment_cycle"
    ALLOTMENT_GUARANTEE_EXCEEDED = "allotment_guarantee_exceeded"
    ALLOTMENT_SUBJECT_TWICE = "allotment_subject_twice"
    ALLOTMENT_TIMES_INVALID = "allotment_times_invalid"


def check_pool(pool: PoolDefinition) -> list[Problem]:
    """Return what is wrong with a pool in itself."""
    problems = [*key(pool.key, "")]
    if UNIT.fullmatch(pool.unit) is None:
        message = f"{pool.unit[:100]!r} is no unit: 1 to 64 letters, digits and . _ : / -"
        problems.append(Problem(PoolCode.UNIT_INVALID, "/unit", message))
    if pool.subject is not None:
        problems += _subject(pool.subject, "/subject")
    if pool.timezone is not None:
        problems += timezone(pool.timezone, "")
    return [*problems, *_policy(pool.policy, "/policy")]


def _policy(policy: Policy, at: str) -> Iterator[Problem]:
    currency = policy.currency
    if currency is not None and currency not in EXPONENTS:
        message = f"{currency[:20]!r} is not an ISO 4217 currency with a minor unit"
        yield Problem(CatalogCode.UNKNOWN_CURRENCY, f"{at}/currency", message)
    limit = policy.limit
    money = {
        "limit/price": limit.price,
        "limit/spend_cap": limit.spend_cap,
        "burst/price": None if policy.burst is None else policy.burst.price,
        "top_up/cost": None if policy.top_up is None else policy.top_up.cost,
    }
    for name, amount in money.items():
        if amount is not None and currency is None:
            message = "an amount of money needs the policy's currency"
            yield Problem(PoolCode.CURRENCY_MISSING, f"{at}/{name}", message)
    units = {
        "limit/units": limit.units,
        "limit/percent": limit.percent,
        "limit/customer_units": limit.customer_units,
        "top_up/below": None if policy.top_up is None else policy.top_up.below,
    }
    yield from _not_negative(money | units, at)
    yield from _contradictions(policy, at)
    yield from _times(policy, at)
    if policy.renewal.count < 1 or policy.renewal.count > 1000:
        message = "a period is 1 to 1000 of its units long"
        yield Problem(PoolCode.RENEWAL_INVALID, f"{at}/renewal/count", message)
    if not _is_day(policy.renewal.anchor_day):
        message = "a day of the month is 1 to 31"
        yield Problem(CatalogCode.ANCHOR_DAY_OUT_OF_RANGE, f"{at}/renewal/anchor_day", message)


def _contradictions(policy: Policy, at: str) -> Iterator[Problem]:
    limit = policy.limit
    bounded = limit.units is not None or limit.percent is not None
    if limit.mode in (LimitMode.HARD, LimitMode.SOFT) and (bounded or limit.price is not None):
        message = f"a {limit.mode.value} limit has neither bound nor price beyond the grants"
        yield Problem(PoolCode.LIMIT_CONTRADICTORY, f"{at}/limit", message)
    if limit.mode is LimitMode.UNLIMITED and (limit != Limit(mode=limit.mode) or policy.burst):
        message = "what is unlimited has no bound, no price and no burst"
        yield Problem(PoolCode.LIMIT_CONTRADICTORY, f"{at}/limit", message)
    if limit.mode is LimitMode.OVERDRAFT and limit.price is not None:
        message = "what is overdrawn is repaid by the next grant, not priced; take mode overage"
        yield Problem(PoolCode.LIMIT_CONTRADICTORY, f"{at}/limit/price", message)
    if limit.mode is LimitMode.OVERDRAFT and not bounded:
        message = "an overdraft is bounded by units or percent"
        yield Problem(PoolCode.LIMIT_CONTRADICTORY, f"{at}/limit", message)
    if policy.burst is not None:
        yield from _positive({"units": policy.burst.units}, f"{at}/burst")
    elif limit.price is None and limit.spend_cap is not None:
        message = "nothing costs anything that it could cap: neither what is beyond, nor a burst"
        yield Problem(PoolCode.LIMIT_CONTRADICTORY, f"{at}/limit/spend_cap", message)
    refill = policy.refill
    if refill is not None:
        yield from _positive({"amount": refill.amount, "capacity": refill.capacity}, f"{at}/refill")
        if policy.top_up is not None or limit.mode is not LimitMode.HARD:
            message = "a rate limit has a hard limit and is not topped up"
            yield Problem(PoolCode.REFILL_CONTRADICTORY, f"{at}/refill", message)
    if policy.top_up is not None:
        yield from _positive({"amount": policy.top_up.amount}, f"{at}/top_up")
        if not 1 <= policy.top_up.times <= TIMES_MAX:
            message = f"a period has 1 to {TIMES_MAX} top-ups"
            yield Problem(PoolCode.TIMES_OUT_OF_RANGE, f"{at}/top_up/times", message)
    order = policy.burn_order
    if len(set(order)) != len(order) or not set(order) <= set(BurnBy):
        message = "each of priority, expiry and age is named at most once"
        yield Problem(PoolCode.BURN_ORDER_INVALID, f"{at}/burn_order", message)


def _times(policy: Policy, at: str) -> Iterator[Problem]:
    seconds: dict[str, int | None] = {
        "undo_seconds": policy.undo_seconds + 1,
        "hold_seconds": policy.hold_seconds,
        "hold_seconds_max": policy.hold_seconds_max,
        "refill/seconds": None if policy.refill is None else policy.refill.seconds,
    }
    if policy.top_up is not None:
        seconds["top_up/cool_off_seconds"] = policy.top_up.cool_off_seconds + 1
        seconds["top_up/expires_after_seconds"] = policy.top_up.expires_after_seconds
        seconds["top_up/pay_within_seconds"] = policy.top_up.pay_within_seconds
    for name, value in seconds.items():
        if value is not None and not 1 <= value <= SECONDS_MAX:
            message = f"must be positive, and at most {SECONDS_MAX}"
            yield Problem(PoolCode.SECONDS_OUT_OF_RANGE, f"{at}/{name}", message)
    if policy.hold_seconds > policy.hold_seconds_max:
        message = "a hold lasts by itself no longer than at most"
        yield Problem(PoolCode.SECONDS_OUT_OF_RANGE, f"{at}/hold_seconds", message)


def check_grant(grant: NewGrant, currency: str | None) -> list[Problem]:
    """Return what is wrong with a grant in itself."""
    problems = [*key(grant.key, "")] if grant.key is not None else []
    problems += _positive({"amount": grant.amount}, "")
    problems += _not_negative({"cost": grant.cost}, "")
    if grant.cost is not None and currency is None:
        message = "a cost needs the currency of the pool's policy"
        problems.append(Problem(PoolCode.CURRENCY_MISSING, "/cost", message))
    if grant.pay_by is not None and not grant.pending:
        message = 'only a grant that waits to be paid has one: say "pending": true as well'
        problems.append(Problem(RefusalCode.GRANT_TIMES_INVALID, "/pay_by", message))
    return problems


def check_recurrence(one: NewRecurrence, currency: str | None) -> list[Problem]:
    """Return what is wrong with a recurring grant in itself."""
    problems = [*key(one.key, ""), *_positive({"amount": one.amount}, "")]
    problems += _not_negative({"cost": one.cost}, "")
    if one.cost is not None and currency is None:
        message = "a cost needs the currency of the pool's policy"
        problems.append(Problem(PoolCode.CURRENCY_MISSING, "/cost", message))
    if one.timezone is not None:
        problems += timezone(one.timezone, "")
    if not 1 <= one.renewal.count <= 1000 or not _is_day(one.renewal.anchor_day):
        message = "a period is 1 to 1000 of its units long, an anchor day is 1 to 31"
        problems.append(Problem(PoolCode.RENEWAL_INVALID, "/renewal", message))
    rollover = one.rollover
    if rollover is not None:
        problems += _not_negative({"units": rollover.units}, "/rollover")
        seconds = 1 if rollover.seconds is None else rollover.seconds
        if not ZERO <= rollover.percent <= 100 or not 1 <= seconds <= SECONDS_MAX:
            message = "a rollover keeps 0 to 100 percent, for a positive time"
            problems.append(Problem(PoolCode.ROLLOVER_INVALID, "/rollover", message))
    return problems


def check_shares(shares: Sequence[Allotment], at: str = "/allotments") -> list[Problem]:
    """Return what is wrong with the shares of a pool, as a whole."""
    by_key = {one.key: one for one in shares}
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for index, one in enumerate(shares):
        place = f"{at}/{index}"
        if KEY.fullmatch(one.key) is None or by_key[one.key] is not one:
            code = CatalogCode.KEY_INVALID if KEY.fullmatch(one.key) is None else None
            message = f"{one.key[:150]!r} is no key, or it is there twice"
            problems.append(Problem(code or CatalogCode.KEY_DUPLICATE, f"{place}/key", message))
        problems += _not_negative(
            {"guarantee": one.guarantee, "cap": one.cap, "overdraft": one.overdraft}, place
        )
        if one.weight < 0 or (one.lend_after_seconds or 0) < 0:
            message = "a weight and a time are not negative"
            problems.append(Problem(PoolCode.AMOUNT_NEGATIVE, place, message))
        if (one.lend_after_seconds or 0) > SECONDS_MAX:
            message = f"must be at most {SECONDS_MAX}"
            pointer = f"{place}/lend_after_seconds"
            problems.append(Problem(PoolCode.SECONDS_OUT_OF_RANGE, pointer, message))
        if one.cap is not None and one.cap < one.guarantee:
            message = "a cap is not below the guarantee"
            problems.append(Problem(PoolCode.LIMIT_CONTRADICTORY, f"{place}/cap", message))
        if one.starts_at and one.ends_at and one.ends_at <= one.starts_at:
            message = "a share ends after it starts"
            problems.append(Problem(PoolCode.ALLOTMENT_TIMES_INVALID, f"{place}/ends_at", message))
        if one.parent is not None and one.parent not in by_key:
            message = f"there is no allotment {one.parent!r}"
            problems.append(Problem(PoolCode.ALLOTMENT_PARENT_UNKNOWN, f"{place}/parent", message))
        elif _in_cycle(one, by_key):
            message = "a share is part of itself"
            problems.append(Problem(PoolCode.ALLOTMENT_CYCLE, f"{place}/parent", message))
        for subject in one.subjects:
            problems += _subject(subject, f"{place}/subjects")
            if seen.setdefault(subject, one.key) != one.key:
                message = f"subject {subject!r} has the share {seen[subject]!r}"
                problems.append(
                    Problem(PoolCode.ALLOTMENT_SUBJECT_TWICE, f"{place}/subjects", message)
                )
    return problems or list(_guarantees(shares, by_key, at))


def _guarantees(
    shares: Sequence[Allotment], by_key: Mapping[str, Allotment], at: str
) -> Iterator[Problem]:
    for index, one in enumerate(shares):
        inside = sum((child.guarantee for child in shares if child.parent == one.key), ZERO)
        if inside > by_key[one.key].guarantee:
            kept = plain_text(inside)
            message = f"the shares within it are guaranteed {kept}, more than its own guarantee"
            pointer = f"{at}/{index}/guarantee"
            yield Problem(PoolCode.ALLOTMENT_GUARANTEE_EXCEEDED, pointer, message)


def _in_cycle(one: Allotment, by_key: Mapping[str, Allotment]) -> bool:
    seen = {one.key}
    parent = one.parent
    while parent is not None and parent in by_key:
        if parent in seen:
            return True
        seen.add(parent)
        parent = by_key[parent].parent
    return False


def _is_day(day: int | None) -> bool:
    return day is None or 1 <= day <= 31


def _subject(text: str, at: str) -> Iterator[Problem]:
    """A subject is one by which units can be asked for."""
    if not (0 < len(text) <= SUBJECT_LENGTH_MAX and text.isprintable()):
        message = f"a subject is 1 to {SUBJECT_LENGTH_MAX} printable characters"
        yield Problem(CatalogCode.SUBJECT_INVALID, at, message)


def _positive(amounts: Mapping[str, Decimal], at: str) -> Iterator[Problem]:
    for name, amount in amounts.items():
        if amount <= 0:
            yield Problem(PoolCode.AMOUNT_NOT_POSITIVE, f"{at}/{name}", "must be above zero")


def _not_negative(amounts: Mapping[str, Decimal | None], at: str) -> Iterator[Problem]:
    for name, amount in amounts.items():
        if amount is not None and amount < 0:
            yield Problem(PoolCode.AMOUNT_NEGATIVE, f"{at}/{name}", "must not be negative")
