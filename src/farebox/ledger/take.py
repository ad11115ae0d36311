"""May this subject take so many units, and where do they come from: the one decision of a pool."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from msgspec.structs import replace

from farebox.catalog.number import plain_text
from farebox.ledger.account import COVERED, ZERO, Account
from farebox.ledger.allotment import Allotment, in_force
from farebox.ledger.book import Book
from farebox.ledger.grant import GrantStatus
from farebox.ledger.hold import Slice
from farebox.ledger.issue import close_if_empty, is_over
from farebox.ledger.license import not_in_force
from farebox.ledger.policy import LimitMode
from farebox.ledger.pool import PoolStatus
from farebox.ledger.reason import Reason
from farebox.ledger.refills import refills_at
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.ledger.transfer import Cause
from farebox.money.rounding import QUANTITY_DECIMALS, RoundingMode, divide, round_to

Taking = tuple[Slice, ...]


def decide(
    book: Book, amount: Decimal, cause: Cause, *, floor: bool = True, borrow: bool = True
) -> Taking | Refusal:
    """Return where `amount` units come from, or why they may not be taken; nothing moves.

    What is due must have been settled. The share that the units count for is written to the cause.
    floor: whether to refuse at all. Without, for what was used already, the units beyond every
    bound come out of overage, so that no use is lost. borrow: whether units beyond the grants will
    do as well; without, they are moved and not used, and no license has to be in force.
    """
    refusal = barred(book, cause, floor=floor, term=borrow)
    if refusal is not None:
        return refusal
    path: Sequence[Allotment] = ()
    available = spendable = book.pool.balances[Account.GRANT]
    if book.shares or cause.allotment is not None:
        found = _share(book, cause, floor=floor)
        if isinstance(found, Refusal):
            return found
        path = found
        spendable = _spendable(book, path, cause.time)
        full = _full(path, amount) if floor else None
        if full is not None:
            most = _most(book, path, spendable, borrow=borrow)
            return _refuse_full(book, full, most)
    if amount <= spendable:
        return tuple(book.slices(amount))
    missing, kept = amount - spendable, available - spendable
    if borrow and book.pool.policy.limit.mode is LimitMode.UNLIMITED:
        return (*book.slices(spendable), Slice(Account.SOURCE, missing))
    if borrow:
        beyond = _beyond(book, path, missing, kept, floor=floor)
    else:
        beyond = _short(book, missing, kept)
    if isinstance(beyond, RefusalCode):
        most = _most(book, path, spendable, borrow=borrow)
        anew = borrow and _begins_anew(book, path, beyond)
        return _refuse(book, beyond, amount, spendable, most, anew=anew)
    return (*book.slices(spendable), *beyond)


def is_past_limit(book: Book, cause: Cause, taking: Taking) -> bool:
    """Whether what was decided without a floor goes past a bound beyond the grants, or a cap.

    Its units must not have moved yet.
    """
    beyond = [one for one in taking if one.account not in COVERED]
    overage = sum((one.amount for one in beyond if one.account is Account.OVERAGE), ZERO)
    limit = book.pool.policy.limit
    if overage and (
        book.pool.status is PoolStatus.CLOSED
        or limit.mode in (LimitMode.HARD, LimitMode.OVERDRAFT)  # it takes none within its bounds
    ):
        return True
    path = _share(book, cause, floor=False)
    assert not isinstance(path, Refusal), "without a floor no share is refused"
    total = sum((one.amount for one in taking), ZERO)
    if _full(path, total) is not None:
        return True
    room = _room_beyond(book, path)
    if overage and room is not None and overage > room:
        return True
    cost = sum((one.amount * one.price for one in beyond if one.price is not None), ZERO)
    cap = limit.spend_cap
    return bool(beyond) and cap is not None and book.pool.counters.spend + cost > cap


def barred(book: Book, cause: Cause, *, floor: bool = True, term: bool = True) -> Refusal | None:
    """Return why nothing at all may be taken from the pool, or nothing by this subject."""
    pool = book.pool
    if pool.status is PoolStatus.CLOSED:
        return Refusal(RefusalCode.POOL_CLOSED, f"pool {pool.key!r} is closed")
    if floor and term and pool.license is not None:
        refusal = not_in_force(pool.license, cause.time)
        if refusal is not None:
            return refusal
    if floor and pool.subject is not None and cause.subject not in (None, pool.subject):
        detail = f"pool {pool.key!r} is that of subject {pool.subject!r} alone"
        return Refusal(RefusalCode.SUBJECT_NOT_SERVED, detail)
    return None


def take(book: Book, cause: Cause, taking: Taking, target: Account, reason: Reason) -> None:
    """Move the units that were decided on to `target`, and count them."""
    total = beyond = ZERO
    counters = book.pool.counters
    if book.shares.lends:
        _borrow_from_idle(book, cause, taking)
    for one in taking:
        total += one.amount
        grant = None if one.grant is None else book.grants[one.grant]
        book.post(cause, reason, one.account, target, one.amount, grant, price=one.price)
        if grant is not None:
            if not grant.available:
                close_if_empty(book, grant)
            continue
        if one.account is Account.SOURCE:
            counters.unlimited += one.amount
            continue
        beyond += one.amount
        if one.account is Account.OVERAGE:
            counters.overage += one.amount
        elif one.account is Account.BURST:
            counters.burst += one.amount
        if one.price is not None:
            counters.spend += one.amount * one.price
    counters.used += total
    if cause.allotment is not None:
        for share in book.shares.path(cause.allotment):
            share.used += total
            share.beyond += beyond
            share.used_at = cause.time
            book.touch(share)


def _borrow_from_idle(book: Book, cause: Cause, taking: Taking) -> None:
    """Note what of the units was kept for shares that are idle: they have lent it."""
    shares = book.shares
    path = [] if cause.allotment is None else shares.path(cause.allotment)
    own = _spendable(book, path, cause.time, lending=False)
    granted = sum((one.amount for one in taking if one.account is Account.GRANT), ZERO)
    if granted > own:
        pool = book.pool
        lenders = shares.lend(path, granted - own, pool.available, pool.capacity, cause.time)
        for lender in lenders:
            book.touch(lender)


def would_give(book: Book, cause: Cause, amount: Decimal) -> bool:
    """Whether the balances, as they stand, allow this subject so many units."""
    path = barred(book, cause) or _share(book, cause, floor=True)
    if isinstance(path, Refusal) or _full(path, amount) is not None:
        return False
    room = _room(book, path, _spendable(book, path, cause.time))
    return room is None or amount <= room


def left(book: Book, cause: Cause, *, term: bool = True) -> Decimal:
    """Return the most units that the grants would give now; term: under a license in force."""
    if barred(book, cause, term=term) is not None:
        return ZERO
    path = _share(book, cause, floor=True)
    if isinstance(path, Refusal):
        return ZERO
    spendable = _spendable(book, path, cause.time)
    return _most(book, path, spendable, borrow=False)


def _share(book: Book, cause: Cause, *, floor: bool) -> Sequence[Allotment] | Refusal:
    """Return the share that the units count for and those around it, the widest first."""
    shares = book.shares
    if cause.allotment is not None and not shares.has(cause.allotment):
        if not floor:  # it was taken away since
            return shares.path(cause.allotment)
        detail = f"pool {book.pool.key!r} has no allotment {cause.allotment!r}"
        return Refusal(RefusalCode.ALLOTMENT_UNKNOWN, detail)
    key = cause.allotment or shares.of(cause.subject)
    if key is None:
        if floor and shares and not book.pool.policy.unallotted:
            who = "nobody" if cause.subject is None else f"subject {cause.subject!r}"
            detail = f"{who} has a share of pool {book.pool.key!r}, and only shares may take"
            if cause.subject is not None:
                detail = f"{who} has no share of pool {book.pool.key!r}, and only shares may take"
            return Refusal(RefusalCode.ALLOTMENT_MISSING, detail)
        return ()
    path = shares.path(key)
    if floor:
        for one in path:
            if not in_force(one, cause.time):
                detail = f"allotment {one.key!r} is not in force at {cause.time.isoformat()}"
                return Refusal(RefusalCode.ALLOTMENT_NOT_IN_FORCE, detail)
    cause.allotment = key
    return path


def _spendable(
    book: Book, path: Sequence[Allotment], time: datetime, *, lending: bool = True
) -> Decimal:
    """Return how many available units are not kept for other shares."""
    available = book.pool.balances[Account.GRANT]
    if not book.shares:
        return available
    return book.shares.spendable(path, available, book.pool.capacity, time, lending=lending)


def _full(path: Sequence[Allotment], amount: Decimal) -> Allotment | None:
    """Return the widest share whose cap `amount` units more would pass."""
    for one in path:
        if one.cap is not None and one.used + amount > one.cap:
            return one
    return None


def _refuse_full(book: Book, full: Allotment, most: Decimal) -> Refusal:
    used, cap = plain_text(full.used), plain_text(full.cap or ZERO)
    detail = f"allotment {full.key!r} has used {used} of its cap of {cap}"
    ends = book.pool.counters.period_end
    return Refusal(RefusalCode.ALLOTMENT_CAP_EXCEEDED, detail, most, ends)


def _beyond(
    book: Book, path: Sequence[Allotment], amount: Decimal, kept: Decimal, *, floor: bool
) -> list[Slice] | RefusalCode:
    """Return from where beyond the grants `amount` units come: burst first, then by the limit.

    kept: how many units the grants have that are kept for other shares.
    """
    policy, counters = book.pool.policy, book.pool.counters
    slices: list[Slice] = []
    spend = counters.spend
    if policy.burst is not None:
        part = min(amount, max(ZERO, policy.burst.units - counters.burst))
        if part:
            slices.append(Slice(Account.BURST, part, None, policy.burst.price))
            spend += part * policy.burst.price
            amount -= part
    if amount:
        refused = _bounded(book, path, amount, kept)
        if refused is not None and floor:
            return refused
        price = policy.limit.price
        if policy.limit.mode is LimitMode.OVERDRAFT:
            part = amount if refused is None else min(amount, _room_beyond(book, path) or ZERO)
            if part:
                slices.append(Slice(Account.OVERDRAFT, part))
            amount -= part
        if amount:
            slices.append(Slice(Account.OVERAGE, amount, None, price))
            spend += ZERO if price is None else amount * price
    cap = policy.limit.spend_cap
    if floor and cap is not None and spend > cap:
        return RefusalCode.SPEND_CAP_EXCEEDED
    return slices


def _short(book: Book, missing: Decimal, kept: Decimal) -> RefusalCode:
    """Return why grants alone do not give what is missing."""
    if book.pool.policy.refill is not None:
        return RefusalCode.RATE_LIMITED
    if missing <= kept:
        return RefusalCode.GUARANTEE_RESERVED
    return RefusalCode.INSUFFICIENT_BALANCE


def _bounded(
    book: Book, path: Sequence[Allotment], amount: Decimal, kept: Decimal
) -> RefusalCode | None:
    """Return why `amount` may not be taken beyond the grants: the least of all bounds holds."""
    policy = book.pool.policy
    match policy.limit.mode:
        case LimitMode.HARD:
            return _short(book, amount, kept)
        case LimitMode.OVERDRAFT:
            code = RefusalCode.OVERDRAFT_EXCEEDED
        case _:
            code = RefusalCode.OVERAGE_LIMIT_EXCEEDED
    room = _room_beyond(book, path)
    return code if room is not None and amount > room else None


def _room_beyond(book: Book, path: Sequence[Allotment]) -> Decimal | None:
    """Return how much more may be taken beyond the grants and the burst; none: without bound."""
    limit, balances = book.pool.policy.limit, book.pool.balances
    if limit.mode is LimitMode.HARD:
        return ZERO
    overdraft = limit.mode is LimitMode.OVERDRAFT
    taken = -balances[Account.OVERDRAFT] if overdraft else book.pool.counters.overage
    rooms = [max(ZERO, bound - taken) for bound in _bounds(book)]
    rooms += [max(ZERO, one.overdraft - one.beyond) for one in path if one.overdraft is not None]
    return min(rooms, default=None)


def _bounds(book: Book) -> list[Decimal]:
    limit = book.pool.policy.limit
    bounds = [one for one in (limit.units, limit.customer_units) if one is not None]
    if limit.percent is not None:
        granted = sum(
            (
                one.amount
                for one in book.grants.values()
                if one.status is GrantStatus.ACTIVE and not is_over(one, book.pool.as_of)
            ),
            ZERO,
        )
        share = Fraction(granted) * Fraction(limit.percent) / 100
        bounds.append(round_to(share, QUANTITY_DECIMALS, RoundingMode.DOWN))
    return bounds


def _refuse(
    book: Book,
    code: RefusalCode,
    amount: Decimal,
    spendable: Decimal,
    most: Decimal,
    *,
    anew: bool,
) -> Refusal:
    pool = book.pool
    asked, left = f"{plain_text(amount)} {pool.unit} asked", plain_text(spendable)
    match code:
        case RefusalCode.RATE_LIMITED:
            detail = f"{asked}, {left} have flowed in"
        case RefusalCode.GUARANTEE_RESERVED:
            detail = f"{asked}, {left} are not kept for other shares"
        case RefusalCode.INSUFFICIENT_BALANCE:
            detail = f"{asked}, {left} available"
        case RefusalCode.OVERDRAFT_EXCEEDED:
            owed = plain_text(-pool.balances[Account.OVERDRAFT])
            detail = f"{asked}, {left} available, {owed} owed already"
        case RefusalCode.SPEND_CAP_EXCEEDED:
            assert pool.policy.limit.spend_cap is not None
            spent, cap = plain_text(pool.counters.spend), plain_text(pool.policy.limit.spend_cap)
            detail = f"{spent} of at most {cap} {pool.policy.currency} are spent"
        case _:
            taken = plain_text(pool.counters.overage)
            detail = f"{asked}, {taken} were taken beyond the grants"
    return Refusal(code, detail, most, refills_at(book, amount, code, anew=anew))


def _most(book: Book, path: Sequence[Allotment], spendable: Decimal, *, borrow: bool) -> Decimal:
    """Return the most that could be taken now; where nothing bounds it, what is bounded of it."""
    rooms = [max(ZERO, one.cap - one.used) for one in path if one.cap is not None]
    room = _room(book, path, spendable) if borrow else spendable
    if room is not None:
        rooms.append(room)
    return min(rooms, default=spendable)


def _room(book: Book, path: Sequence[Allotment], spendable: Decimal) -> Decimal | None:
    """Return how much the grants and what is beyond them could give now; none: without bound."""
    policy, counters = book.pool.policy, book.pool.counters
    if policy.limit.mode is LimitMode.UNLIMITED:
        return None
    room, budget = spendable, None
    if policy.limit.spend_cap is not None:
        budget = policy.limit.spend_cap - counters.spend
        if budget < 0:  # usage that was not asked about went past it
            return room
    if policy.burst is not None:
        burst = max(ZERO, policy.burst.units - counters.burst)
        part = _affordable(burst, policy.burst.price, budget)
        room += part
        if part < burst:
            return room
        budget = None if budget is None else budget - part * policy.burst.price
    beyond = _room_beyond(book, path)
    price = policy.limit.price
    if beyond is None:
        if budget is None or not price:
            return None
        return room + divide(budget, price, QUANTITY_DECIMALS, RoundingMode.DOWN)
    return room + _affordable(beyond, price, budget)


def _affordable(units: Decimal, price: Decimal | None, budget: Decimal | None) -> Decimal:
    if not price or budget is None or units * price <= budget:
        return units
    return divide(budget, price, QUANTITY_DECIMALS, RoundingMode.DOWN)


def _begins_anew(book: Book, path: Sequence[Allotment], code: RefusalCode) -> bool:
    """Whether what was in the way counts within a period: overage, spend, bursts, a share's."""
    if code in (RefusalCode.OVERAGE_LIMIT_EXCEEDED, RefusalCode.SPEND_CAP_EXCEEDED):
        return True
    if book.pool.policy.burst is not None and book.pool.counters.burst:
        return True
    renewed = [replace(one, beyond=ZERO) for one in path]
    return _room_beyond(book, path) != _room_beyond(book, renewed)
