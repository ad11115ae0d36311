"""A pool as a person would keep it, for the oracle of the ledger: lists, and sums over them.

Nothing is kept in order and no count is kept in step: what happens next is found by looking at
everything, what is counted is summed up from all that was ever taken.
"""

from calendar import monthrange
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Any
from zoneinfo import ZoneInfo

from farebox.ledger.allotment import Allotment
from farebox.ledger.policy import Policy, Renewal
from farebox.ledger.pool import Terms

ZERO = Decimal(0)
FAR = datetime(9999, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
TERMS, HOLD, PAYMENT, PERIOD, RENEWAL, EXPIRY, START = range(7)
MONTHS = {"month": 1, "quarter": 3, "year": 12}

Row = dict[str, Any]


def floor18(value: Fraction) -> Decimal:
    return Decimal(value.numerator * 10**18 // value.denominator).scaleb(-18)


def half_up18(value: Fraction) -> Decimal:
    return floor18(value + Fraction(1, 2 * 10**18))


def bounds(renewal: Renewal, start: datetime, zone: str) -> Iterator[tuple[datetime, datetime]]:
    """Yield the end of each period, and when its whole period began."""

    def midnight(day: date) -> datetime:
        return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)

    day = start.astimezone(ZoneInfo(zone)).date()
    if renewal.unit.value in ("day", "week"):
        step = timedelta(days=renewal.count * (7 if renewal.unit.value == "week" else 1))
        while True:
            yield midnight(day + step), midnight(day)
            day += step
    anchor, months = renewal.anchor_day or day.day, MONTHS[renewal.unit.value] * renewal.count

    def in_month(month: int) -> date:
        year, index = divmod(month, 12)
        return date(year, index + 1, min(anchor, monthrange(year, index + 1)[1]))

    month = day.year * 12 + day.month - 1
    if in_month(month) < day:
        month += 1
    if in_month(month) > day:
        yield midnight(in_month(month)), midnight(in_month(month - months))
    while True:
        yield midnight(in_month(month + months)), midnight(in_month(month))
        month += months


class Told:
    """One pool as it stands after all that it was told."""

    def __init__(
        self,
        opened_at: datetime,
        zone: str,
        policy: Policy,
        shares: Sequence[Allotment] = (),
        owner: str | None = None,
    ) -> None:
        self.opened_at, self.zone, self.policy, self.owner = opened_at, zone, policy, owner
        self.shares = {one.key: one for one in shares}
        self.log: list[tuple[datetime, str, str, str, Decimal, int | None]] = []
        self.grants: dict[int, Row] = {}
        self.holds: dict[int, Row] = {}
        self.recurrences: dict[int, Row] = {}
        self.takings: list[Row] = []
        self.share_used_at: dict[str, datetime] = {}
        self.lent: dict[str, Decimal] = {}
        self.top_ups: list[datetime] = []
        self.period_start, self.period_end = opened_at, opened_at
        self.closed = False
        self.now = opened_at
        self.terms: Terms | None = None

    # Moving --------------------------------------------------------------------------------------

    def move(self, why: str, source: str, to: str, amount: Decimal, grant: Row | None) -> None:
        self.log.append((self.now, why, source, to, amount, grant and grant["number"]))
        if grant is not None and source == "grant":
            grant["left"] -= amount
        if grant is not None and to == "grant":
            grant["left"] += amount

    def balance(self, account: str) -> Decimal:
        came = sum((one[4] for one in self.log if one[3] == account), ZERO)
        return came - sum((one[4] for one in self.log if one[2] == account), ZERO)

    def available(self) -> Decimal:
        return sum((one["left"] for one in self.grants.values()), ZERO)

    def held(self, grant: int) -> Decimal:
        return sum((t["amount"] for t in self.takings if t["hold"] and t["grant"] == grant), ZERO)

    def is_open(self, grant: Row) -> bool:
        return bool(grant["waits"] or grant["left"] or self.held(grant["number"]))

    def burn_order(self) -> list[Row]:
        names = {"priority": "priority", "expiry": "expires", "age": "issued"}
        order = [names[by.value] for by in self.policy.burn_order]
        return sorted(
            (one for one in self.grants.values() if one["left"]),
            key=lambda one: [*(one[name] for name in order), one["issued"], one["number"]],
        )

    def from_grants(self, amount: Decimal) -> list[tuple[Row, Decimal]]:
        parts = []
        for grant in self.burn_order():
            part = min(amount, grant["left"])
            if part:
                parts.append((grant, part))
            amount -= part
        return parts

    # Coming in -----------------------------------------------------------------------------------

    def issue(self, why: str, amount: Decimal, *, source: str = "source", **facts: Any) -> Row:
        grant = {"priority": 0, "issued": self.now, "effective": self.now, "expires": FAR}
        grant |= {"cost": None, "waits": None, "pay_by": FAR, "over": False, "voided": False}
        grant |= facts | {"number": len(self.log) + 1, "amount": amount, "left": ZERO}
        self.grants[grant["number"]] = grant
        if grant["waits"] is None and grant["effective"] > self.now:
            grant["waits"] = "time"
        self.move(why, source, "pending" if grant["waits"] else "grant", amount, grant)
        if not grant["waits"]:
            self.repay()
        return grant

    def activate(self, grant: Row, why: str) -> None:
        grant["waits"] = "time" if grant["effective"] > self.now else None
        if not grant["waits"]:
            self.move(why, "pending", "grant", grant["amount"], grant)
            self.repay()

    def cancel(self, grant: Row, why: str) -> None:
        grant["waits"] = None
        self.move(why, "pending", "source", grant["amount"], grant)

    def repay(self) -> None:
        held = sum(
            (t["amount"] for t in self.takings if t["hold"] and t["where"] == "overdraft"), ZERO
        )
        due = -self.balance("overdraft") - held
        for grant, part in self.from_grants(max(ZERO, min(due, self.available()))):
            self.move("overdraft_repaid", "grant", "overdraft", part, grant)

    # Time ----------------------------------------------------------------------------------------

    def due(self) -> Iterator[tuple[datetime, int, int]]:
        yield self.period_end, PERIOD, 0
        if self.terms is not None and self.terms.at > self.now:
            yield self.terms.at, TERMS, 0
        for number, hold in self.holds.items():
            if hold["status"] == "open":
                yield hold["ends"], HOLD, number
        for number, one in self.recurrences.items():
            yield one["next"], RENEWAL, number
        for number, grant in self.grants.items():
            if grant["waits"] == "payment":
                yield grant["pay_by"], PAYMENT, number
            if grant["waits"] == "time":
                yield grant["effective"], START, number
            if self.is_open(grant) and not grant["over"]:
                yield grant["expires"], EXPIRY, number

    def pass_until(self, until: datetime) -> None:
        while True:
            moment, kind, number = min(self.due())
            if moment > until:
                break
            self.now = moment
            if kind == TERMS and self.terms is not None:
                before, after = self.policy, self.terms
                spent, self.policy = self.spend(), after.over(before)
                lengths = [(one.renewal.unit, one.renewal.count) for one in (before, after)]
                converted = spent and before.currency != after.currency
                if after.anew or converted or lengths[0] != lengths[1]:
                    self.begin_period(moment)
            elif kind == HOLD:
                self.give_back(self.held_by(number), self.holds[number]["amount"], "hold_expired")
                self.holds[number] |= {"status": "expired", "amount": ZERO}
                self.repay()
            elif kind == PAYMENT:
                self.cancel(self.grants[number], "grant_unpaid")
            elif kind == PERIOD:
                self.begin_period(moment)
            elif kind == RENEWAL:
                self.renew(self.recurrences[number])
            elif kind == EXPIRY:
                self.expire(self.grants[number])
            else:
                self.activate(self.grants[number], "grant_effective")
        self.now = until

    def begin_period(self, moment: datetime) -> None:
        ends = bounds(self.policy.renewal, self.opened_at, self.zone)
        self.period_start = moment
        self.lent = {}
        self.period_end = next(end for end, _ in ends if end > moment)

    def expire(self, grant: Row) -> None:
        grant["over"] = True
        if grant["waits"]:
            why = "grant_unpaid" if grant["waits"] == "payment" else "grant_expired"
            self.cancel(grant, why)
        elif grant["left"]:
            self.move("grant_expired", "grant", "expired", grant["left"], grant)

    def renew(self, one: Row) -> None:
        running, end = self.grants.get(one["grant"]), one["next"]
        if one["ends"] <= end:
            one |= {"next": FAR, "grant": None}
            return
        ends = bounds(one["renewal"], one["start"], one["zone"])
        until, begins = next(found for found in ends if found[0] > end)
        rollover = one["rollover"]
        if running is not None and running["left"] and rollover is not None:
            kept = floor18(Fraction(running["left"]) * Fraction(rollover.percent) / 100)
            if rollover.units is not None:
                kept = min(kept, rollover.units)
            if kept:
                cost, lasts = running["cost"], rollover.seconds
                if cost is not None:
                    cost = half_up18(Fraction(cost) * Fraction(kept) / Fraction(running["amount"]))
                self.move("rolled_over", "grant", "source", kept, running)
                whole = until if lasts is None else end + timedelta(seconds=lasts)
                facts = {"priority": running["priority"], "cost": cost}
                rolled = self.issue("rolled_over", kept, expires=min(whole, one["ends"]), **facts)
                one.setdefault("rolled", []).append((rolled["number"], whole))
        amount = one["amount"]
        if one["prorated"]:
            begun = max(one["start"], begins)
            share = Fraction((until - begun) // TICK, (until - begins) // TICK)
            amount = half_up18(Fraction(amount) * share)
        facts = {"priority": one["priority"], "cost": one["cost"]}
        facts |= {"expires": min(until, one["ends"])}
        grant = self.issue("grant_renewed", amount, **facts) if amount else None
        one |= {"next": until, "grant": grant and grant["number"]}

    def held_by(self, hold: int) -> list[Row]:
        return [t for t in self.takings if t["hold"] == hold]

    def give_back(self, takings: list[Row], amount: Decimal, why: str, source: str = "held") -> Row:
        """Give back what was taken last first; return how much of it went where."""
        back: Row = {}
        for taking in reversed(takings):
            part, where = min(amount, taking["amount"]), taking["where"]
            if not part:
                continue
            amount -= part
            taking["amount"] -= part
            back[where] = back.get(where, ZERO) + part
            grant = self.grants.get(taking["grant"])
            if grant is not None and grant["voided"]:
                self.move("grant_voided", source, "source", part, grant)
                continue
            if grant is not None and grant["expires"] <= self.now:
                self.move("grant_expired", source, "expired", part, grant)
                continue
            self.move(why, source, where, part, grant)
            repaid = self.balance("overdraft")
            if where == "overdraft" and repaid > 0:
                self.issue(why, repaid, source="overdraft")
        return back

    # Counting ------------------------------------------------------------------------------------

    def counted(self) -> list[Row]:
        """Return what counts in this period: taken or settled within it, or held still."""
        return [t for t in self.takings if t["hold"] or t["at"] >= self.period_start]

    def count(self, where: str | None = None, share: str | None = None) -> Decimal:
        found = [t for t in self.counted() if share is None or share in self.path(t["share"])]
        beyond = [t for t in found if where is None or t["where"] == where]
        return sum((t["amount"] for t in beyond), ZERO)

    def beyond_of(self, share: str) -> Decimal:
        return sum((self.count(one, share) for one in ("overdraft", "overage", "burst")), ZERO)

    def spend(self) -> Decimal:
        return sum((t["amount"] * t["price"] for t in self.counted() if t["price"]), ZERO)

    def path(self, key: str | None) -> list[str]:
        return [] if key is None else [*self.path(self.shares[key].parent), key]

    def share_of(self, subject: str | None) -> str | None:
        if subject in self.shares:
            return subject
        found = [one.key for one in self.shares.values() if subject in one.subjects]
        return found[0] if found else None

    def in_force(self, key: str) -> bool:
        one = self.shares[key]
        return (one.starts_at or self.opened_at) <= self.now < (one.ends_at or FAR)

    def entitled(self, key: str) -> Decimal:
        """Return what a share is guaranteed, with its part of what nobody is."""
        one = self.shares[key]
        if not self.in_force(key):
            return ZERO
        room = self.capacity() if one.parent is None else self.entitled(one.parent)
        peers = [s for s in self.shares.values() if s.parent == one.parent and self.in_force(s.key)]
        rest = room - sum((peer.guarantee for peer in peers), ZERO)
        weights = sum(peer.weight for peer in peers)
        if rest <= 0 or not weights:
            return one.guarantee
        return one.guarantee + floor18(Fraction(rest) * one.weight / weights)

    def capacity(self) -> Decimal:
        """Return what grants have, and gave, in this period; what is owed no grant gave yet."""
        beyond = sum((self.count(where) for where in ("overage", "burst", "source")), ZERO)
        beyond -= self.balance("overdraft")
        return self.available() + max(ZERO, self.count() - beyond)

    def is_idle(self, key: str) -> bool:
        after = self.shares[key].lend_after_seconds
        idle = self.now - max(self.share_used_at.get(key, self.period_start), self.period_start)
        return after is not None and idle >= timedelta(seconds=after)

    def had(self, key: str) -> Decimal:
        return self.count(share=key) + self.lent.get(key, ZERO)

    def whole(self, key: str) -> Decimal:
        cap = self.shares[key].cap
        return self.entitled(key) if cap is None else min(self.entitled(key), cap)

    def kept(
        self, parent: str | None, mine: str | None, available: Decimal, *, lending: bool
    ) -> tuple[dict[str, Decimal], bool]:
        """Return what is kept for each share of a level, and whether they had to give way."""
        keeping = [
            key
            for key, one in self.shares.items()
            if one.parent == parent
            and self.in_force(key)
            and not (lending and key != mine and self.is_idle(key))
        ]
        full = {key: max(ZERO, self.whole(key) - self.had(key)) for key in keeping}
        if sum(full.values()) <= available:
            return full, False
        for size in range(1, len(keeping) + 1):  # some have something left, and the others not
            for some in combinations(keeping, size):
                wholes = sum((self.whole(key) for key in some), ZERO)
                rest = available + sum((self.had(key) for key in some), ZERO)
                if not wholes:
                    continue
                part = Fraction(rest) / Fraction(wholes)
                left = {k: part * Fraction(self.whole(k)) - Fraction(self.had(k)) for k in keeping}
                if all(
                    (units >= 0) if key in some else (units <= 0) for key, units in left.items()
                ):
                    return {key: max(ZERO, floor18(units)) for key, units in left.items()}, True
        raise AssertionError((full, available))

    def levels(
        self, path: Sequence[str], *, lending: bool
    ) -> Iterator[tuple[str | None, dict[str, Decimal], Decimal]]:
        """Yield, from the top down, whose share it is, what each is kept, and what is left."""
        room = self.available()
        for parent, mine in zip([None, *path], [*path, None], strict=True):
            kept, short = self.kept(parent, mine, room, lending=lending)
            own = kept.get(mine, ZERO) if mine else ZERO
            room = own if short else room - sum(kept.values(), ZERO) + own
            yield mine, kept, room

    def spendable(self, path: Sequence[str], *, lending: bool = True) -> Decimal:
        """Return what of the grants is not kept for others, level by level."""
        return list(self.levels(path, lending=lending))[-1][2]

    def borrow_from_idle(self, path: Sequence[str], units: Decimal) -> None:
        """Let idle shares lend, those of the widest level first, by key."""
        for mine, kept, _ in list(self.levels(path, lending=False)):
            for key in sorted(kept):
                part = min(units, kept[key])
                if key != mine and self.is_idle(key) and part:
                    self.lent[key] = self.lent.get(key, ZERO) + part
                    units -= part
