"""Allotments: nested shares of one pool for teams, projects and users."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from msgspec import Struct

from farebox.ledger.account import ZERO
from farebox.money.rounding import RoundingMode, round_to
from farebox.period.instant import BEGINNING

UNIT_DECIMALS = 18


class Allotment(Struct, kw_only=True):
    """A share of a pool, or of the share named by `parent`; what counts is the running period.

    guarantee: so much is kept for it. cap: it gets no more. weight: its part of what nobody is
    guaranteed, kept for it likewise. subjects: who takes from it besides the one it is named for.
    lend_after_seconds: how long after its last use what is kept for it may be taken by others,
    until the next period; none: never. overdraft: the most it may go beyond the pool's grants.
    used: units taken or held in this period, those of the shares below included. lent: units that
    were kept for it and that others took in this period.
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


class Shares:
    """The allotments of a pool as a tree, and whose share is whose."""

    __slots__ = ("_children", "_of_subject", "by_key")

    def __init__(self, allotments: Iterable[Allotment]) -> None:
        self.by_key: dict[str, Allotment] = {one.key: one for one in allotments}
        self._children: dict[str | None, list[Allotment]] = {}
        self._of_subject: dict[str, str] = {}
        for key in sorted(self.by_key):
            one = self.by_key[key]
            self._children.setdefault(one.parent, []).append(one)
            self._of_subject[key] = key
        for key in sorted(self.by_key):
            for subject in self.by_key[key].subjects:
                self._of_subject.setdefault(subject, key)

    def __bool__(self) -> bool:
        return bool(self.by_key)

    def of(self, subject: str | None) -> str | None:
        """Return the key of the share that a subject takes from."""
        return None if subject is None else self._of_subject.get(subject)

    def path(self, key: str) -> list[Allotment]:
        """Return the share and those that it is part of, the widest first."""
        path: list[Allotment] = []
        at: str | None = key
        while at is not None:
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

        What is kept for others is not; where more is kept than there is, all give way in
        proportion. capacity: the units that the pool has in this period, used ones included.
        lending: whether idle shares keep nothing.
        """
        room = available
        for one, kept in self._levels(path, capacity, now, lending=lending):
            others = sum((units for other, units in kept.items() if other != one), ZERO)
            own = ZERO if one is None else kept[one]
            if own + others <= room:
                room -= others
            elif own:
                part = Fraction(room) * Fraction(own) / Fraction(own + others)
                room = round_to(part, UNIT_DECIMALS, RoundingMode.DOWN)
            else:
                room = max(ZERO, room - others)
        return room

    def lend(
        self,
        path: Sequence[Allotment],
        units: Decimal,
        capacity: Decimal,
        now: datetime,
    ) -> list[Allotment]:
        """Let idle shares lend `units` to whoever takes by this path; return those that did.

        What a share has lent is kept for it no more until the next period.
        """
        lenders = []
        for one, kept in self._levels(path, capacity, now, lending=False):
            for key in sorted(kept):
                part = min(units, kept[key])
                if key != one and part and is_lent(self.by_key[key], now):
                    self.by_key[key].lent += part
                    lenders.append(self.by_key[key])
                    units -= part
        return lenders

    def _levels(
        self, path: Sequence[Allotment], capacity: Decimal, now: datetime, *, lending: bool
    ) -> Iterator[tuple[str | None, dict[str, Decimal]]]:
        """Yield from the widest level down which share is taken from, and what each is kept."""
        parent: str | None = None
        room = capacity
        for one in [*path, None]:
            children = self._children.get(parent, ())
            shares = _effective(children, room, now)
            yield (
                None if one is None else one.key,
                {
                    other.key: _kept_for(other, shares, now, lending=lending and other is not one)
                    for other in children
                },
            )
            if one is not None:
                parent, room = one.key, shares.get(one.key, ZERO)


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
    return {
        one.key: one.guarantee
        + round_to(Fraction(rest) * one.weight / weights, UNIT_DECIMALS, RoundingMode.DOWN)
        for one in present
    }


def _kept_for(
    one: Allotment, shares: Mapping[str, Decimal], now: datetime, *, lending: bool
) -> Decimal:
    share = shares.get(one.key)
    if share is None or (lending and is_lent(one, now)):
        return ZERO
    if one.cap is not None:
        share = min(share, one.cap)
    return max(ZERO, share - one.used - one.lent)


def is_lent(one: Allotment, now: datetime) -> bool:
    """Whether others may take what is kept for this share: nobody has used it for long enough."""
    if one.lend_after_seconds is None:
        return False
    since = max(one.used_at or BEGINNING, one.idle_since or BEGINNING)
    return now - since >= timedelta(seconds=one.lend_after_seconds)
