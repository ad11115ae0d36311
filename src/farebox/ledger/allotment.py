"""Allotments: nested shares of one pool for teams, projects and users."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from msgspec import Struct

from farebox.ledger.account import ZERO
from farebox.money.rounding import QUANTITY_DECIMALS
from farebox.period.instant import BEGINNING


class Allotment(Struct, kw_only=True):
    """A share of a pool, or of the share named by `parent`; what counts is the running period.

    guarantee: so much is kept for it. cap: it gets no more. weight: its part of what nobody is
    guaranteed, kept for it likewise. subjects: who takes from it besides the one it is named for.
    lend_after_seconds: how long after its last use what is kept for it may be taken by others,
    until the next period; none: never. overdraft: the most it may go beyond the pool's grants,
    what was repaid since included: what is owed is the pool's.
    used: units taken or held in this period, those of the shares below included, also of those that
    were taken away since. lent: units that were kept for it and that others took in this period.
    removed: it was taken away; what it used counts for those that it was part of.
    """

    key: str
    parent: str | None = None
    guarantee: Decimal = ZERO
    cap: Decimal | None = None
    weight: int = 0
    subjects: tuple[str, ...] = ()
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    lend_after_seconds: int | None = None
    overdraft: Decimal | None = None
    used: Decimal = ZERO
    beyond: Decimal = ZERO
    lent: Decimal = ZERO
    used_at: datetime | None = None
    idle_since: datetime | None = None
    removed: bool = False


class Shares:
    """The allotments of a pool as a tree, and whose share is whose."""

    __slots__ = ("_children", "_of_subject", "by_key", "lends")

    def __init__(self, allotments: Iterable[Allotment]) -> None:
        self.by_key: dict[str, Allotment] = {one.key: one for one in allotments}
        self._children: dict[str | None, list[Allotment]] = {}
        self._of_subject: dict[str, str] = {}
        present = self.present()
        self.lends = any(one.lend_after_seconds is not None for one in present)
        for one in present:
            self._children.setdefault(one.parent, []).append(one)
            self._of_subject[one.key] = one.key
        for one in present:
            for subject in one.subjects:
                self._of_subject.setdefault(subject, one.key)

    def __bool__(self) -> bool:
        """Whether the pool has any share that was not taken away."""
        return bool(self._of_subject)

    def present(self) -> list[Allotment]:
        """Return the shares that the pool has, by key."""
        return [self.by_key[key] for key in sorted(self.by_key) if not self.by_key[key].removed]

    def has(self, key: str) -> bool:
        return key in self.by_key and not self.by_key[key].removed

    def of(self, subject: str | None) -> str | None:
        """Return the key of the share that a subject takes from."""
        return None if subject is None else self._of_subject.get(subject)

    def path(self, key: str) -> list[Allotment]:
        """Return the share and those that it is part of, the widest first.

        None of them where it was taken away before this period.
        """
        path: list[Allotment] = []
        at: str | None = key
        while at is not None and at in self.by_key:
            one = self.by_key[at]
            path.append(one)
            at = one.parent
        path.reverse()
        return path

    def spendable(
        self,
        path: Sequence[Allotment],
        available: Decimal,
        capacity: Decimal,
        now: datetime,
        *,
        lending: bool = True,
    ) -> Decimal:
        """Return how many available units whoever takes by this path may take.

        What is kept for others is not. capacity: the units that the grants have, and had, in this
        period. lending: whether idle shares keep nothing.
        """
        *_, (_, _, room) = self._levels(path, available, capacity, now, lending=lending)
        return room

    def lend(
        self,
        path: Sequence[Allotment],
        units: Decimal,
        available: Decimal,
        capacity: Decimal,
        now: datetime,
    ) -> list[Allotment]:
        """Let idle shares lend `units` to whoever takes by this path; return those that did.

        What a share has lent is kept for it no more until the next period.
        """
        lenders = []
        for one, kept, _ in self._levels(path, available, capacity, now, lending=False):
            for key in sorted(kept):
                part = min(units, kept[key])
                if key != one and part and is_lent(self.by_key[key], now):
                    self.by_key[key].lent += part
                    lenders.append(self.by_key[key])
                    units -= part
        return lenders

    def _levels(
        self,
        path: Sequence[Allotment],
        available: Decimal,
        capacity: Decimal,
        now: datetime,
        *,
        lending: bool,
    ) -> Iterator[tuple[str | None, dict[str, Decimal], Decimal]]:
        """Yield from the widest level down which share is taken from, what each is kept, the rest.

        The rest is what is available below that level: what others are kept is not in it.
        """
        parent: str | None = None
        for one in [*path, None]:
            mine = None if one is None else one.key
            children = self._children.get(parent, ())
            shares = _effective(children, capacity, now)
            keeping = [
                other
                for other in children
                if other.key in shares and (other is one or not (lending and is_lent(other, now)))
            ]
            kept, short = keep(keeping, shares, available)
            own = ZERO if mine is None else kept.get(mine, ZERO)
            available = own if short else available - sum(kept.values(), ZERO) + own
            yield mine, kept, available
            if mine is not None:
                parent, capacity = mine, shares.get(mine, ZERO)


def in_force(one: Allotment, now: datetime) -> bool:
    return (one.starts_at is None or one.starts_at <= now) and (
        one.ends_at is None or now < one.ends_at
    )


def _effective(
    children: Iterable[Allotment], room: Decimal, now: datetime
) -> Mapping[str, Decimal]:
    """Return what each share is kept: its guarantee, and by weight a part of the rest."""
    present = [one for one in children if in_force(one, now)]
    rest = room - sum((one.guarantee for one in present), ZERO)
    weights = sum(one.weight for one in present)
    if rest <= 0 or not weights:
        return {one.key: one.guarantee for one in present}
    units = _units(rest)
    return {one.key: one.guarantee + _amount(units * one.weight // weights) for one in present}


def keep(
    present: Sequence[Allotment], shares: Mapping[str, Decimal], available: Decimal
) -> tuple[dict[str, Decimal], bool]:
    """Return what each of these shares is kept, and whether that is less than it should be.

    Where more is to be kept than there is, the whole of each share shrinks in the same proportion,
    what it has had of it included: so nobody gets more by asking first, or often.
    """
    wholes = {
        one.key: shares[one.key] if one.cap is None else min(shares[one.key], one.cap)
        for one in present
    }
    kept = {one.key: max(ZERO, wholes[one.key] - _had(one)) for one in present}
    if sum(kept.values(), ZERO) <= available:
        return kept, False
    had = {one.key: _units(_had(one)) for one in present}
    whole = {key: _units(units) for key, units in wholes.items()}
    units, of = _part([(whole[key], had[key]) for key in whole], _units(available))
    return {key: _amount(max(0, whole[key] * units // of - had[key])) for key in whole}, True


def _had(one: Allotment) -> Decimal:
    return one.used + one.lent


def _units(amount: Decimal) -> int:
    return int(amount.scaleb(QUANTITY_DECIMALS))


def _amount(units: int) -> Decimal:
    return Decimal(units).scaleb(-QUANTITY_DECIMALS)


def _part(shares: Sequence[tuple[int, int]], available: int) -> tuple[int, int]:
    """Return at which part of each whole what is left of all comes to `available`, as a fraction.

    shares: a whole, and what was had of it. At the whole of them more is left.
    """
    # Whoever has had more than the part in which all take part has nothing left at a smaller one.
    while True:
        units = available + sum(had for _, had in shares)
        of = sum(whole for whole, _ in shares)
        left = [(whole, had) for whole, had in shares if whole * units >= had * of]
        if len(left) == len(shares):
            return units, of
        shares = left


def is_lent(one: Allotment, now: datetime) -> bool:
    """Whether others may take what is kept for this share: nobody has used it for long enough."""
    if one.lend_after_seconds is None:
        return False
    since = max(one.used_at or BEGINNING, one.idle_since or BEGINNING)
    return now - since >= timedelta(seconds=one.lend_after_seconds)
