"""Whatever is asked of two pools, in whatever order: the books say what the oracle says."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from farebox_ledger_compare import checked, compare_books, facts_of, part_of, sums_and_chains
from farebox_ledger_desk import START, Desk
from farebox_ledger_oracle import Asked, Oracle
from farebox_ledger_strategies import (
    DUST,
    lengths,
    names,
    orders,
    places,
    policies,
    renewals,
    rollovers,
    steps,
    terms,
    trees,
    units,
    zones,
)
from farebox_ledger_told import FAR, TICK
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace as but

from farebox.ledger.account import Account
from farebox.ledger.administer import (
    NewGrant,
    NewRecurrence,
    add_grant,
    add_recurrence,
    change_policy,
    end_recurrence,
    end_recurrence_at,
    expire_grant,
    fail_grant,
    move_units,
    pay_grant,
    set_terms,
    void_grant,
)
from farebox.ledger.allotment import Allotment
from farebox.ledger.command import Answer, Draw, Extend, Release, Reserve, Settle
from farebox.ledger.decide import SKEW
from farebox.ledger.grant import Grant, GrantStatus, Recurrence
from farebox.ledger.policy import LimitMode, Policy
from farebox.ledger.pool import Terms
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.ledger.take import left
from farebox.ledger.transfer import Cause
from farebox.money.rounding import exact

D = Decimal
USED = Account.USED


def seldom(pools: "Pools") -> bool:
    """Let most steps be those of every day: what follows is tried at every fourth only."""
    return sum(map(len, pools.histories.values())) % 4 == 0


class Pools(RuleBasedStateMachine):
    """Two pools at their desks; all that was asked of each is kept for its oracle."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.desks: dict[str, Desk] = {}
        self.histories: dict[str, list[Asked]] = {"a": [], "b": []}
        self.oracles: dict[str, Oracle] = {}
        self.used: dict[str, list[int]] = {"a": [], "b": []}

    @initialize(policy=policies, other=policies, shares=trees(), zone=zones, own=st.booleans())
    def open(
        self, policy: Policy, other: Policy, shares: list[Allotment], zone: str, own: bool
    ) -> None:
        subject = "ann" if own else None
        self.desks["a"] = Desk(policy, shares=shares, timezone=zone)
        self.desks["b"] = Desk(other, subject=subject, key="other")
        self.made = {"a": (zone, policy, shares, None), "b": ("UTC", other, [], subject)}
        for name in self.desks:
            self.desks[name].look(START)
            self.tell(name, START, "look")
            self.simple_grant(name, D(20), None)

    # Asking both ---------------------------------------------------------------------------------

    def tell(self, name: str, at: datetime, verb: str, **facts: Any) -> Any:
        """Return what the oracle says to all that was ever asked, and this."""
        zone, policy, shares, subject = self.made[name]
        self.histories[name].append((at, verb, facts))
        oracle = Oracle(START, zone, policy, shares, subject)
        self.oracles[name] = oracle.tell(self.histories[name])
        return oracle.answer

    def at(self, name: str, back: int) -> datetime:
        """Return the time of a decision that is asked for by a clock `back` seconds behind."""
        return max(self.now - timedelta(seconds=back), self.desks[name].book.pool.as_of)

    def ask(self, name: str, back: int, command: Any, verb: str, **facts: Any) -> Any:
        desk = self.desks[name]
        outcome = desk.ask(command, self.now - timedelta(seconds=back))
        return self.compare(name, outcome, self.tell(name, self.at(name, back), verb, **facts))

    def do(self, name: str, verb: str, change: Any, *arguments: Any, **facts: Any) -> Any:
        outcome = self.desks[name].do(change, *arguments, self.now)
        return self.compare(name, outcome, self.tell(name, self.now, verb, **facts))

    def compare(self, name: str, outcome: Any, expected: Any) -> Any:
        if isinstance(outcome, Refusal):
            assert expected == outcome.code
        elif isinstance(outcome, Answer):
            assert expected == facts_of(outcome)
        elif isinstance(outcome, (Grant, Recurrence)):
            assert expected in (None, outcome.number)
        else:
            assert expected is outcome is None
        return outcome

    # Rules: taking -------------------------------------------------------------------------------

    pools = st.sampled_from("aaab")
    backs = st.sampled_from([0, 0, 0, 2])

    @rule(name=pools, back=backs, amount=units, subject=names, share=st.data(), forced=places)
    def draw(
        self, name: str, back: int, amount: Decimal, subject: Any, share: Any, forced: int
    ) -> None:
        asked = {"amount": amount, "subject": subject, "allotment": None, "forced": forced < 20}
        if forced > 170:
            asked["allotment"] = share.draw(st.sampled_from(["top", "left", "none"]))
        outcome = self.ask(name, back, Draw(**asked), "draw", **asked)
        if isinstance(outcome, Answer):
            self.used[name].append(outcome.operation)
            if not asked["forced"]:
                self.within_bounds(name, outcome)
        else:
            self.agrees(name, outcome, Draw(**asked))

    @rule(name=pools, back=backs, amount=units, subject=names, seconds=lengths)
    def reserve(self, name: str, back: int, amount: Decimal, subject: Any, seconds: Any) -> None:
        asked = {"amount": amount, "subject": subject, "allotment": None, "seconds": seconds}
        outcome = self.ask(name, back, Reserve(**asked), "reserve", **asked)
        if isinstance(outcome, Answer):
            self.within_bounds(name, outcome)

    @precondition(lambda self: self.any_hold())
    @rule(name=pools, place=places, share=st.sampled_from(["0", "0.5", "1", "1.5", "4"]))
    def settle(self, name: str, place: int, share: str) -> None:
        number = self.hold(name, place)
        held = self.desks[name].holds.get(number)
        amount = part_of(D(1) if held is None else held.amount, share)
        command = Settle(hold=number, amount=amount)
        outcome = self.ask(name, 0, command, "settle", number=number, amount=amount)
        if isinstance(outcome, Answer):
            self.used[name].append(outcome.operation)

    @precondition(lambda self: self.any_hold())
    @rule(name=pools, place=places, amount=st.just(D(0)) | units, seconds=lengths)
    def extend(self, name: str, place: int, amount: Decimal, seconds: int | None) -> None:
        facts = {"amount": amount, "seconds": seconds}
        number = self.hold(name, place)
        outcome = self.ask(name, 0, Extend(hold=number, **facts), "extend", number=number, **facts)
        if isinstance(outcome, Answer):
            self.within_bounds(name, outcome)

    @precondition(lambda self: self.any_hold())
    @rule(name=pools, place=places)
    def release(self, name: str, place: int) -> None:
        number = self.hold(name, place)
        self.ask(name, 0, Release(hold=number), "release", number=number)

    @precondition(lambda self: self.used["a"] or self.used["b"])
    @rule(name=pools, place=places, share=st.sampled_from([None, None, "0.5", "1", "1.5"]))
    def reverse(self, name: str, place: int, share: str | None) -> None:
        if not self.used[name]:
            return
        desk, operation = self.desks[name], self.used[name][-1 - place % len(self.used[name])]
        taken = [t for t in desk.transfers if t.operation == operation and t.target is USED]
        if not taken:  # a hold that was settled for nothing
            return
        amount = None
        if share is not None:
            amount = max(DUST, part_of(sum((t.amount for t in taken), D(0)), share))
        outcome = desk.reverse(operation, self.now, amount)
        told = self.tell(name, self.at(name, 0), "reverse", number=operation, amount=amount)
        self.compare(name, outcome, told)

    # Rules: grants -------------------------------------------------------------------------------

    days = st.sampled_from([None, -1, 0, 1, 3, 30])

    @precondition(seldom)
    @rule(name=pools, amount=units, priority=st.integers(0, 2), start=days, lasts=days, pay=days)
    def grant(
        self, name: str, amount: Decimal, priority: int, start: Any, lasts: Any, pay: Any
    ) -> None:
        asked: dict[str, Any] = {"priority": priority, "cost": amount}
        facts = dict(asked)
        for days, field, fact in (
            (start, "effective_at", "effective"),
            (lasts, "expires_at", "expires"),
            (None if pay == 30 else pay, "pay_by", "pay_by"),
        ):
            if days is not None:
                asked[field] = facts[fact] = self.now + timedelta(days=days)
        pending = pay is not None
        new = NewGrant(amount=amount, pending=pending, **asked)
        told = self.tell(name, self.now, "grant", amount=amount, pending=pending, **facts)
        self.compare(name, self.desks[name].do(add_grant, new, self.now), told)

    @precondition(seldom)
    @rule(name=pools, amount=units, lasts=st.sampled_from([None, 1]))
    def simple_grant(self, name: str, amount: Decimal, lasts: int | None) -> None:
        self.grant(name, amount, 0, None, lasts, None)

    @precondition(seldom)
    @rule(name=pools, place=places, verb=st.sampled_from(["pay", "pay", "fail", "void", "expire"]))
    def change(self, name: str, place: int, verb: str) -> None:
        grants = self.desks[name].grants
        unpaid = [n for n, one in grants.items() if one.status is GrantStatus.PENDING]
        numbers = unpaid if unpaid and verb in ("pay", "fail") and place < 150 else sorted(grants)
        if not numbers:
            return
        number = numbers[-1 - place % len(numbers)]
        changes = {"pay": pay_grant, "fail": fail_grant, "void": void_grant, "expire": expire_grant}
        verb_told = "expire_now" if verb == "expire" else verb
        self.do(name, verb_told, changes[verb], number, number=number)

    @precondition(seldom)
    @precondition(lambda self: len(self.desks["a"].recurrences) < 3)
    @rule(
        amount=units,
        renewal=renewals,
        zone=zones,
        rollover=st.none() | rollovers,
        prorated=st.booleans(),
        start=days,
        end=days,
    )
    def recur(self, start: Any, end: Any, **facts: Any) -> None:
        starts = None if start is None else self.now + timedelta(days=start)
        ends = None if end is None else self.now + timedelta(days=end + 3)
        zone = facts.pop("zone")
        new = NewRecurrence(key="k", timezone=zone, starts_at=starts, ends_at=ends, **facts)
        facts |= {"starts": starts or self.now, "ends": ends or FAR, "cost": None, "priority": 0}
        self.do("a", "recur", add_recurrence, new, zone=zone, **facts)

    @precondition(seldom)
    @precondition(lambda self: self.desks["a"].recurrences)
    @rule(place=places)
    def end_recurring(self, place: int) -> None:
        known = sorted(self.desks["a"].recurrences)
        number = known[place % len(known)]
        self.do("a", "end_recurrence", end_recurrence, number, number=number)

    @precondition(seldom)
    @precondition(lambda self: self.desks["a"].recurrences)
    @rule(place=places, end=days)
    def end_recurring_at(self, place: int, end: int | None) -> None:
        known = sorted(self.desks["a"].recurrences)
        number, desk = known[place % len(known)], self.desks["a"]
        ends = None if end is None else self.now + timedelta(days=end)
        outcome = desk.do(end_recurrence_at, number, ends, self.now)
        told = self.tell("a", self.now, "end_recurrence_at", number=number, ends=ends or FAR)
        self.compare("a", outcome, told)

    @precondition(seldom)
    @rule(names=st.sampled_from(["ab", "ba"]), amount=units, subject=names, back=backs)
    def move(self, names: str, amount: Decimal, subject: Any, back: int) -> None:
        giving, taking = (self.desks[name] for name in names)
        at = max(self.at(name, back) for name in names)
        asked = self.now - timedelta(seconds=back)
        cause = Cause(asked, subject)
        outcome = move_units(giving.book, taking.book, amount, asked, cause)
        giving.commit()
        taking.commit()
        closed = self.oracles[names[1]].closed
        facts = {"amount": amount, "subject": subject, "target_closed": closed}
        told = self.tell(names[0], at, "move_out", **facts)
        moved = isinstance(told, list)
        self.tell(names[1], at, "arrive", units=told if moved else [])
        self.compare(names[0], outcome, None if moved else told)

    # Rules: the pool, the clock, the database ----------------------------------------------------

    @precondition(seldom)
    @rule(name=pools, terms=terms, order=orders, place=places)
    def allow(self, name: str, terms: Terms, order: Any, place: int) -> None:
        if place < 150:
            return
        policy = but(terms.over(self.desks[name].book.pool.policy), burn_order=order)
        self.do(name, "allow", change_policy, policy, policy=policy)

    @precondition(seldom)
    @rule(name=pools, terms=st.none() | terms)
    def come_next(self, name: str, terms: Terms | None) -> None:
        terms = but(terms, at=self.now + (terms.at - START)) if terms else None
        self.desks[name].look(self.now)
        self.desks[name].do(set_terms, terms)
        self.tell(name, self.now, "set_terms", terms=terms)

    @precondition(seldom)
    @rule(name=pools, place=places)
    def close(self, name: str, place: int) -> None:
        closed = place > 190
        if closed or self.oracles[name].closed:
            self.desks[name].look(self.now)
            self.desks[name].close(closed=closed)
            self.tell(name, self.now, "close", closed=closed)

    @rule(step=steps)
    def wait(self, step: timedelta) -> None:
        self.now += step

    @precondition(seldom)
    @rule(name=pools)
    def reload(self, name: str) -> None:
        self.desks[name].reload()

    @precondition(seldom)
    @rule(name=pools, amount=units)
    def go_back(self, name: str, amount: Decimal) -> None:
        """A clock that is too far behind is refused, and nothing moves."""
        desk = self.desks[name]
        outcome = desk.ask(Draw(amount=amount), desk.book.pool.as_of - SKEW - TICK)
        assert isinstance(outcome, Refusal)
        assert RefusalCode.CLOCK_WENT_BACK == outcome.code

    # What is always so ---------------------------------------------------------------------------

    def any_hold(self) -> bool:
        return any(desk.book.holds for desk in self.desks.values())

    def hold(self, name: str, place: int) -> int:
        """Return an open hold if there is one, now and then an ended or an unknown one."""
        desk = self.desks[name]
        numbers = sorted(desk.book.holds) if place < 150 else sorted(desk.holds)
        return numbers[place % len(numbers)] if numbers and place < 195 else 999_999

    def within_bounds(self, name: str, answer: Answer) -> None:
        book = self.desks[name].book
        limit, owed = book.pool.policy.limit, -book.pool.balances[Account.OVERDRAFT]
        if limit.mode is LimitMode.HARD:
            assert {Account.BURST} >= set(answer.beyond)
        if Account.OVERDRAFT in answer.beyond:
            for bound in (limit.units, limit.customer_units):
                assert bound is None or owed <= bound
        if limit.spend_cap is not None and answer.beyond:
            assert book.pool.counters.spend <= limit.spend_cap

    def agrees(self, name: str, refusal: Refusal, command: Draw) -> None:
        """What a refusal says is left can be had, and no more than that."""
        book, most = self.desks[name].book, refusal.left
        if most is None or command.amount < DUST:
            return
        assert most < command.amount
        at = book.pool.as_of
        if most:
            assert not isinstance(checked(book, but(command, amount=most), at), Refusal)
        assert isinstance(checked(book, but(command, amount=most + DUST), at), Refusal)

    @invariant()
    def what_is_left_is_what_grants_give(self) -> None:
        for name, desk in self.desks.items():
            for subject in ("ann", "carl", "dora"):
                at = desk.book.pool.as_of
                most = left(desk.book, Cause(at, subject))
                given = checked(desk.book, Draw(amount=most, subject=subject), at) if most else ()
                assert not isinstance(given, Refusal), (name, given)
                assert all(one.account is Account.GRANT for one in given)
                more = checked(desk.book, Draw(amount=most + DUST, subject=subject), at)
                assert isinstance(more, Refusal) or more[-1].account is not Account.GRANT

    @invariant()
    def books_are_what_the_oracle_says(self) -> None:
        for name, desk in self.desks.items():
            compare_books(desk, self.oracles[name])
            sums_and_chains(desk)


def test_books_say_what_the_oracle_says() -> None:
    with exact():
        run_state_machine_as_test(
            Pools, settings=settings(max_examples=100, stateful_step_count=40, deadline=None)
        )
