"""What a pool must answer and come to, worked out anew from the list of all that was asked of it.

It does not stop at the first thing that stands against a request: it collects all of them and takes
the one that comes first in the enum.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from farebox_ledger_granted import Granted, Refused
from farebox_ledger_told import FAR, ZERO, Row, floor18, half_up18

from farebox.ledger.policy import TopUp
from farebox.ledger.refusal import RefusalCode

Asked = tuple[datetime, str, Mapping[str, Any]]
Parts = list[tuple[str, Row | None, Decimal, Decimal | None]]
ENDED = {
    "settled": RefusalCode.HOLD_SETTLED,
    "released": RefusalCode.HOLD_RELEASED,
    "expired": RefusalCode.HOLD_EXPIRED,
}

PAST = {"insufficient_balance", "guarantee_reserved", "overdraft_exceeded"}
PAST |= {"overage_limit_exceeded", "spend_cap_exceeded"}
"""What stands against units beyond the grants, and would not if there were more of them."""

FLAGGED = PAST | {"allotment_cap_exceeded"}
NEVER = TopUp(below=ZERO, amount=ZERO, cost=ZERO)


class Oracle(Granted):
    """A pool that is told what was asked of it; `answer` is what it says to the last."""

    answer: Any = None
    past = False

    def tell(self, history: Iterable[Asked]) -> "Oracle":
        for at, verb, facts in history:
            self.pass_until(at)
            try:
                self.answer = getattr(self, verb)(**facts)
            except Refused as refused:
                self.answer = refused.code
        return self

    # May they, and from where --------------------------------------------------------------------

    def decide(
        self,
        amount: Decimal,
        subject: str | None,
        allotment: str | None,
        *,
        forced: bool = False,
        borrow: bool = True,
    ) -> tuple[Parts, str | None]:
        if self.closed:
            raise Refused(RefusalCode.POOL_CLOSED)
        policy, against = self.policy, set[RefusalCode]()
        if self.owner is not None and subject not in (None, self.owner):
            against.add(RefusalCode.SUBJECT_NOT_SERVED)
        share = allotment or self.share_of(subject)
        if share is not None and share not in self.shares:
            against.add(RefusalCode.ALLOTMENT_UNKNOWN)
            share = None
        if share is None and self.shares and not policy.unallotted:
            against.add(RefusalCode.ALLOTMENT_MISSING)
        path = self.path(share)
        for key in path:
            cap = self.shares[key].cap
            if not self.in_force(key):
                against.add(RefusalCode.ALLOTMENT_NOT_IN_FORCE)
            if cap is not None and self.count(share=key) + amount > cap:
                against.add(RefusalCode.ALLOTMENT_CAP_EXCEEDED)
        available = self.available()
        spendable = self.spendable(path)
        missing = max(ZERO, amount - spendable)
        burst, unlimited = ZERO, borrow and policy.limit.mode.value == "unlimited"
        if borrow and not unlimited and policy.burst is not None:
            burst = min(missing, max(ZERO, policy.burst.units - self.count("burst")))
        rest = missing - burst
        room = self.room_beyond(path) if borrow else ZERO
        if room is not None and rest > room:
            against |= self.too_much(rest, available - spendable, borrow)
        price = policy.limit.price
        cost = rest * (price or ZERO)
        if policy.burst is not None:
            cost += burst * policy.burst.price
        cap = policy.limit.spend_cap
        if missing and cap is not None and self.spend() + cost > cap:
            against.add(RefusalCode.SPEND_CAP_EXCEEDED)
        self.past = bool(against & FLAGGED)
        if against and not forced:
            raise Refused(*against)
        parts: Parts = [
            ("grant", grant, part, None) for grant, part in self.from_grants(amount - missing)
        ]
        if burst and policy.burst is not None:
            parts.append(("burst", None, burst, policy.burst.price))
        if policy.limit.mode.value == "overdraft":
            lent = rest if room is None else min(rest, room)
            parts.append(("overdraft", None, lent, None))
            rest -= lent
        parts.append(("source" if unlimited else "overage", None, rest, price))
        return [part for part in parts if part[2]], share

    def too_much(self, rest: Decimal, kept: Decimal, borrow: bool) -> set[RefusalCode]:
        mode = self.policy.limit.mode.value
        if borrow and mode == "overdraft":
            return {RefusalCode.OVERDRAFT_EXCEEDED}
        if borrow and mode != "hard":
            return {RefusalCode.OVERAGE_LIMIT_EXCEEDED}
        reserved = {RefusalCode.GUARANTEE_RESERVED} if rest <= kept else set[RefusalCode]()
        return reserved | {RefusalCode.INSUFFICIENT_BALANCE}

    def room_beyond(self, path: list[str]) -> Decimal | None:
        limit = self.policy.limit
        if limit.mode.value in ("hard", "unlimited"):
            return ZERO if limit.mode.value == "hard" else None
        overdraft = limit.mode.value == "overdraft"
        taken = -self.balance("overdraft") if overdraft else self.count("overage")
        rooms = [
            bound - taken for bound in (limit.units, limit.customer_units) if bound is not None
        ]
        if limit.percent is not None:
            granted = sum(
                (
                    one["amount"]
                    for one in self.grants.values()
                    if self.is_open(one)
                    and not one["waits"]
                    and one["expires"] > self.now
                    and not one.get("on_trial")  # nobody buys to borrow on it
                ),
                ZERO,
            )
            rooms.append(floor18(Fraction(granted) * Fraction(limit.percent) / 100) - taken)
        for key in path:
            bound = self.shares[key].overdraft
            if bound is not None:
                rooms.append(bound - self.beyond_of(key))
        return max(ZERO, min(rooms)) if rooms else None

    # Taking --------------------------------------------------------------------------------------

    def take(self, parts: Parts, why: str, to: str, share: str | None, **facts: Any) -> None:
        granted = sum((amount for where, _, amount, _ in parts if where == "grant"), ZERO)
        own = self.spendable(self.path(share), lending=False)
        self.borrow_from_idle(self.path(share), max(ZERO, granted - own))
        for where, grant, amount, price in parts:
            self.move(why, where, to, amount, grant)
            number = grant and grant["number"]
            taking = {"where": where, "grant": number, "amount": amount, "price": price}
            self.takings.append(taking | {"share": share, "at": self.now, "hold": None} | facts)
        for key in self.path(share):
            self.share_used_at[key] = self.now

    def answered(
        self, operation: int, amount: Decimal, parts: Iterable[Row], hold: int | None = None
    ) -> Row:
        beyond: dict[str, Decimal] = {}
        for part in parts:
            for where, units in part.items():
                beyond[where] = beyond.get(where, ZERO) + units
        covered = beyond.pop("grant", ZERO) + beyond.pop("source", ZERO)
        flagged = "overage" in beyond and self.policy.limit.mode.value != "overage"
        answer = {
            "operation": operation if len(self.log) >= operation else 0,
            "amount": amount,
            "covered": covered,
            "beyond": beyond,
            "available": self.available(),
            "over_limit": flagged,
            "hold": hold,
            "expires": None if hold is None else self.holds[hold]["ends"],
        }
        self.buy_if_low()
        return answer

    def decide_buying(
        self, amount: Decimal, subject: Any, allotment: Any
    ) -> tuple[Parts, str | None]:
        """Decide; as long as something is missing and may be bought, buy it and decide again."""
        tried = False
        while True:
            missing = amount > self.available()
            try:
                decided = self.decide(amount, subject, allotment)
            except Refused as refused:
                wants = refused.code in PAST
                low = self.available() < (self.policy.top_up or NEVER).below
                helps = wants and (tried or (missing and self.would_do(amount, subject, allotment)))
                if wants and low and not helps and self.buy():
                    return self.decide(amount, subject, allotment)
                if not helps or not self.buy():
                    raise
                tried = True
            else:
                if missing and self.covers(amount, subject, allotment):
                    return self.decide(amount, subject, allotment)
                return decided

    def buy_for_use(self, amount: Decimal) -> None:
        while amount > self.available() and self.buy():
            pass

    def covers(self, amount: Decimal, subject: Any, allotment: Any) -> bool:
        """Buy what is missing of what is granted, if it is granted then as well."""
        policy = self.policy.top_up
        if policy is None:
            return False
        held = sum(
            (t["amount"] for t in self.takings if t["hold"] and t["where"] == "overdraft"), ZERO
        )
        missing = amount - self.balance("overdraft") - held - self.available()
        times = 0
        while times < self.at_once() and policy.amount * times < missing:
            times += 1
        if policy.payment.value != "prepaid" and not self.would_do(
            amount, subject, allotment, times
        ):
            return False
        return all(self.buy() for _ in range(times)) and times > 0

    def at_once(self) -> int:
        policy = self.policy.top_up or NEVER
        left = policy.times - len([at for at in self.top_ups if at >= self.period_start])
        one = policy.cool_off_seconds or policy.payment.value == "prepaid"
        return min(left, 1) if one else left

    def would_do(
        self, amount: Decimal, subject: Any, allotment: Any, times: int | None = None
    ) -> bool:
        """Whether all that may be bought at once would let a refused request through."""
        policy, trial = self.policy.top_up, deepcopy(self)
        if policy is None:
            return False
        times = self.at_once() if times is None else times
        trial.issue("topped_up", policy.amount * times, on_trial=True)
        try:
            return bool(trial.decide(amount, subject, allotment))
        except Refused:
            return False

    def buy_if_low(self) -> None:
        if self.available() < (self.policy.top_up or NEVER).below:
            self.buy()

    def buy(self) -> bool:
        """Buy once if that is allowed; return whether it was."""
        policy = self.policy.top_up
        if policy is None or self.closed or self.policy.limit.mode.value == "unlimited":
            return False
        bought = [at for at in self.top_ups if at >= self.period_start]
        soon = any(
            self.now < at + timedelta(seconds=policy.cool_off_seconds) for at in self.top_ups
        )
        waiting = any(one["waits"] == "payment" for one in self.grants.values())
        if len(bought) >= policy.times or soon or waiting:
            return False
        lasts, prepaid = policy.expires_after_seconds, policy.payment.value == "prepaid"
        until = self.now + timedelta(seconds=policy.pay_within_seconds)
        self.top_ups.append(self.now)
        self.issue(
            "topped_up",
            policy.amount,
            cost=policy.cost,
            expires=FAR if lasts is None else self.now + timedelta(seconds=lasts),
            waits="payment" if prepaid else None,
            pay_by=until if prepaid else FAR,
        )
        return True

    def draw(self, amount: Decimal, subject: Any, allotment: Any, forced: bool) -> Row:
        if forced:
            self.buy_for_use(amount)
            parts, share = self.decide(amount, subject, allotment, forced=True)
        else:
            parts, share = self.decide_buying(amount, subject, allotment)
        number = len(self.log) + 1
        self.take(parts, "metered" if forced else "drawn", "used", share, operation=number)
        return self.answered(number, amount, [{part[0]: part[2]} for part in parts])

    def reserve(self, amount: Decimal, subject: Any, allotment: Any, seconds: int | None) -> Row:
        self.not_too_long(seconds, subject=subject)
        parts, share = self.decide_buying(amount, subject, allotment)
        number = len(self.log) + 1
        self.take(parts, "held", "held", share, operation=None, hold=number)
        ends = self.now + timedelta(seconds=seconds or self.policy.hold_seconds)
        hold = {"amount": amount, "ends": ends, "subject": subject, "share": share}
        self.holds[number] = hold | {"status": "open"}
        return self.answered(number, amount, [{part[0]: part[2]} for part in parts], number)

    def not_too_long(self, seconds: int | None, subject: Any = None, *, takes: bool = True) -> None:
        if seconds is None or seconds <= self.policy.hold_seconds_max:
            return
        against = [RefusalCode.HOLD_TOO_LONG]
        if self.owner is not None and subject not in (None, self.owner):
            against.append(RefusalCode.SUBJECT_NOT_SERVED)
        raise Refused(*against, *([RefusalCode.POOL_CLOSED] if takes and self.closed else []))

    def open_hold(self, number: int, *, takes: bool = False) -> Row:
        hold = self.holds.get(number, {"status": "unknown"})
        if hold["status"] != "open":
            against = ENDED.get(hold["status"], RefusalCode.HOLD_UNKNOWN)
            raise Refused(against, *([RefusalCode.POOL_CLOSED] if takes and self.closed else []))
        return hold

    def settle(self, number: int, amount: Decimal) -> Row:
        hold = self.open_hold(number)
        self.buy_for_use(amount - hold["amount"])
        operation, over, past = len(self.log) + 1, amount - hold["amount"], False
        self.give_back(self.held_by(number), max(ZERO, -over), "released")
        for taking in self.held_by(number):
            if taking["amount"]:
                grant = self.grants.get(taking["grant"])
                self.move("settled", "held", "used", taking["amount"], grant)
                taking |= {"operation": operation, "at": self.now}
            taking["hold"] = None
        if over > 0:
            share, given = hold["share"], min(over, self.available())
            parts: Parts = [("grant", one, part, None) for one, part in self.from_grants(given)]
            parts += [("overage", None, over - given, self.policy.limit.price)] * (given < over)
            past = given < over
            if not self.closed:
                parts, share = self.decide(over, hold["subject"], share, forced=True)
                past = self.past
            why = "settled_past_limit" if past else "settled_beyond"
            self.take(parts, why, "used", share, operation=operation)
        hold |= {"status": "settled", "amount": ZERO}
        self.repay()
        used = [t for t in self.takings if t["operation"] == operation]
        answer = self.answered(operation, amount, [{t["where"]: t["amount"]} for t in used], number)
        return answer | {"over_limit": past or answer["over_limit"]}

    def extend(self, number: int, amount: Decimal, seconds: int | None) -> Row:
        hold, parts, operation = self.open_hold(number, takes=amount > 0), [], len(self.log) + 1
        if seconds is not None and seconds > self.policy.hold_seconds_max:
            self.not_too_long(seconds, takes=amount > 0)
        if amount:
            parts, share = self.decide_buying(amount, hold["subject"], hold["share"])
            operation = len(self.log) + 1
            self.take(parts, "hold_extended", "held", share, operation=None, hold=number)
        hold["amount"] += amount
        hold["ends"] = max(hold["ends"], self.now + timedelta(seconds=seconds or 0))
        return self.answered(operation, amount, [{part[0]: part[2]} for part in parts], number)

    def release(self, number: int) -> Row:
        hold, operation = self.open_hold(number), len(self.log) + 1
        amount = hold["amount"]
        self.give_back(self.held_by(number), amount, "released")
        hold |= {"status": "released", "amount": ZERO}
        self.repay()
        return self.answered(operation, amount, [], number)

    def reverse(self, number: int, amount: Decimal | None) -> Row:
        taken = [t for t in self.takings if t["operation"] == number]
        rest = sum((t["amount"] for t in taken), ZERO)
        against = [] if rest else [RefusalCode.DRAW_REVERSED]
        if self.now > taken[0]["at"] + timedelta(seconds=self.policy.undo_seconds):
            against.append(RefusalCode.REVERSAL_TOO_LATE)
        if amount is not None and amount > rest:
            against.append(RefusalCode.REVERSAL_EXCEEDS_DRAW)
        if against:
            raise Refused(*against)
        operation, amount = len(self.log) + 1, rest if amount is None else amount
        back = self.give_back(taken, amount, "reversed", "used")
        self.repay()
        return self.answered(operation, amount, [back])

    # Moving to another pool -----------------------------------------------------------------------

    def move_out(self, amount: Decimal, subject: Any, target_closed: bool) -> list[Row]:
        against = [RefusalCode.POOL_CLOSED] if target_closed else []
        try:
            parts, _ = self.decide(amount, subject, None, borrow=False)
        except Refused as refused:
            raise Refused(refused.code, *against) from None
        if against:
            raise Refused(*against)
        arriving = []
        for _, grant, part, _ in parts:
            assert grant is not None
            self.move("moved_out", "grant", "transit", part, grant)
            cost = grant["cost"]
            if cost is not None:
                cost = half_up18(Fraction(cost) * Fraction(part) / Fraction(grant["amount"]))
            facts = {name: grant[name] for name in ("priority", "issued", "expires")}
            arriving.append({"amount": part, "cost": cost} | facts)
        return arriving

    def arrive(self, units: list[Row]) -> None:
        for one in units:
            self.issue("moved_in", source="transit", **one)
