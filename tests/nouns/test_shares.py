"""Shares of a pool: nobody gets more by asking first or often, and no use is forgotten."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from random import Random

import pytest
from farebox_ledger_desk import START, Desk
from hypothesis import given
from hypothesis import strategies as st

from farebox.ledger.account import Account
from farebox.ledger.allotment import Allotment, Shares
from farebox.ledger.command import Answer, Command, Draw, Release, Reserve, Settle
from farebox.ledger.policy import Limit, LimitMode, Policy, Renewal
from farebox.ledger.reason import Reason
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.ledger.take import left
from farebox.ledger.transfer import Cause
from farebox.money.rounding import RoundingMode, exact, round_to
from farebox.period.cycle import Unit

D = Decimal
DUST = D(10) ** -16
WHO = ("ann", "bob", "carl", "dora", "team")


def granted(desk: Desk, command: Command, seconds: int = 0) -> Answer:
    answer = desk.ask(command, START + timedelta(seconds=seconds))
    assert isinstance(answer, Answer), answer
    return answer


def left_for(desk: Desk, who: str | None, seconds: int = 0) -> Decimal:
    return left(desk.book, Cause(START + timedelta(seconds=seconds), who))


def part_of(units: Decimal, part: Decimal) -> Decimal:
    return round_to(Fraction(units) * Fraction(part), 18, RoundingMode.DOWN)


def take_shares_away(desk: Desk, *keys: str) -> None:
    """Let a pool have the other shares only, as `farebox.flows.share_pool` does."""
    for one in desk.shares.values():
        one.removed |= one.key in keys
    desk.book.shares = Shares(desk.shares.values())


def shares_of(numbers: Sequence[int | None], nested: bool) -> list[Allotment]:
    """Return a share for each of four, two of them within a team if `nested`."""
    parts = iter(numbers)
    found = [
        Allotment(
            key=who,
            parent="team" if nested and who in ("carl", "dora") else None,
            guarantee=D(next(parts) or 0),
            weight=next(parts) or 0,
            cap=None if (cap := next(parts)) is None else D(cap),
        )
        for who in WHO
    ]
    return found if nested else found[:-1]


amounts = st.integers(0, 60)
terms = st.tuples(*[amounts, st.integers(0, 3), st.none() | amounts] * len(WHO))


@given(terms, st.booleans(), st.integers(1, 100), st.data())
def test_whoever_takes_leaves_itself_as_much_less_and_others_what_is_kept_for_them(
    numbers: Sequence[int | None], nested: bool, available: int, data: st.DataObject
) -> None:
    with exact():
        desk = Desk(shares=shares_of(numbers, nested))
        desk.grant(D(available))
        for _ in range(4):
            who = data.draw(st.sampled_from([*WHO[: len(desk.shares)], None]))
            before = {one: left_for(desk, one) for one in (*desk.shares, None)}
            if not before[who]:
                continue
            part = data.draw(st.sampled_from([D(1), D("0.5"), D("0.3")]))
            units = part_of(before[who], part) or before[who]
            granted(desk, Draw(amount=units, subject=who))
            assert abs(before[who] - units - left_for(desk, who)) <= DUST


@given(terms, st.integers(0, 2**32))
def test_where_too_little_is_there_all_get_the_same_in_whatever_order_they_ask(
    numbers: Sequence[int | None], seed: int
) -> None:
    shares = shares_of(numbers, nested=False)
    guaranteed = sum(
        one.guarantee if one.cap is None else min(one.guarantee, one.cap) for one in shares
    )
    if guaranteed < 2:
        return
    got = []
    with exact():
        for random in (Random(seed), Random(seed + 1)):
            desk = Desk(shares=shares)
            desk.grant(D(guaranteed) / 2)
            asking = [one.key for one in shares] * 6
            random.shuffle(asking)
            for who in [*asking, *(one.key for one in shares)]:
                last = len(desk.transfers) > 20
                units = part_of(left_for(desk, who), D(1) if last else D("0.4"))
                if units:
                    granted(desk, Draw(amount=units, subject=who))
            for one in shares:
                if units := left_for(desk, one.key):
                    granted(desk, Draw(amount=units, subject=one.key))
            got.append([desk.shares[one.key].used for one in shares])
    assert all(abs(one - other) <= DUST for one, other in zip(*got, strict=True))


@pytest.mark.usefixtures("exactly")
def test_a_share_gets_no_more_by_asking_again() -> None:
    desk = Desk(shares=[Allotment(key=who, guarantee=D(60)) for who in ("ann", "bob")])
    desk.grant("100")
    granted(desk, Draw(amount=D(50), subject="ann"))
    assert (D(0), D(50)) == (left_for(desk, "ann"), left_for(desk, "bob"))


@pytest.mark.usefixtures("exactly")
def test_overage_of_one_makes_the_parts_of_others_no_bigger() -> None:
    policy = Policy(limit=Limit(mode=LimitMode.SOFT))
    shares = [Allotment(key="ann", guarantee=D(20))]
    shares += [Allotment(key=who, weight=1) for who in ("bob", "carl")]
    desk = Desk(policy, shares=shares)
    desk.grant("100")
    granted(desk, Draw(amount=D(120), subject="ann"))
    assert (D(40), D(40)) == (left_for(desk, "bob"), left_for(desk, "carl"))
    granted(desk, Draw(amount=D(40), subject="bob"))
    assert (D(0), D(40)) == (left_for(desk, "bob"), left_for(desk, "carl"))


@pytest.mark.usefixtures("exactly")
def test_more_than_was_held_above_the_cap_of_a_share_is_settled_and_flagged() -> None:
    for over, flagged in ((D(5), False), (D("5.1"), True)):
        shares = [Allotment(key="team", cap=D(15)), Allotment(key="ann", parent="team")]
        desk = Desk(shares=shares)
        desk.grant("100")
        hold = granted(desk, Reserve(amount=D(10), subject="ann")).hold
        assert hold is not None
        answer = granted(desk, Settle(hold=hold, amount=10 + over))
        assert (flagged, {}) == (answer.over_limit, answer.beyond)
        why = Reason.SETTLED_PAST_LIMIT if flagged else Reason.SETTLED_BEYOND
        assert why is desk.transfers[-1].reason


def test_team_keeps_what_was_used_by_a_share_that_is_gone() -> None:
    team = Allotment(key="team", cap=D(100))
    shares = [team, *(Allotment(key=who, parent="team") for who in ("ann", "bob"))]
    with exact():
        desk = Desk(Policy(renewal=Renewal(unit=Unit.DAY)), shares=shares)
        desk.grant("1000")
        granted(desk, Draw(amount=D(70), subject="ann"))
        held = granted(desk, Reserve(amount=D(10), subject="ann", seconds=600)).hold
        assert held is not None
        take_shares_away(desk, "ann")
        assert D(20) == left_for(desk, "bob")
        refusal = desk.ask(Draw(amount=D(1), allotment="ann"), START)
        assert isinstance(refusal, Refusal)
        assert RefusalCode.ALLOTMENT_UNKNOWN is refusal.code
        granted(desk, Draw(amount=D(5), subject="ann"))  # as one of no share
        assert D(20) == left_for(desk, "bob")
        settled = granted(desk, Settle(hold=held, amount=D(12)))
        assert not settled.over_limit
        assert (D(18), D(82)) == (left_for(desk, "bob"), desk.shares["ann"].used)
        desk.reload()
        assert D(18) == left_for(desk, "bob")
        desk.look(START + timedelta(days=1))
        assert (D(0), D(100)) == (desk.shares["ann"].used, left_for(desk, "bob", 86_400))


@pytest.mark.usefixtures("exactly")
def test_a_pool_whose_shares_are_all_gone_is_as_one_that_never_had_any() -> None:
    desk = Desk(Policy(unallotted=False), shares=[Allotment(key="ann")])
    desk.grant("10")
    granted(desk, Draw(amount=D(1), subject="ann"))
    assert isinstance(desk.ask(Draw(amount=D(1), subject="bob"), START), Refusal)
    take_shares_away(desk, "ann")
    granted(desk, Draw(amount=D(1), subject="bob"))


@pytest.mark.usefixtures("exactly")
def test_what_a_share_that_is_gone_still_holds_goes_back_to_its_team() -> None:
    shares = [Allotment(key="team", cap=D(100)), Allotment(key="ann", parent="team")]
    desk = Desk(shares=shares)
    desk.grant("1000")
    held = granted(desk, Reserve(amount=D(30), subject="ann")).hold
    assert held is not None
    take_shares_away(desk, "ann")
    assert D(70) == left_for(desk, "team")
    granted(desk, Release(hold=held))
    assert D(100) == left_for(desk, "team")


def test_what_a_share_borrowed_counts_in_its_period_though_a_grant_has_repaid_it() -> None:
    """What is owed is the pool's, so nobody can say whose part of it was repaid."""
    limit = Limit(mode=LimitMode.OVERDRAFT, units=D(10))
    desk = Desk(Policy(limit=limit), shares=[Allotment(key="ann", overdraft=D(5))])
    assert isinstance(desk.ask(Draw(amount=D(5), subject="ann"), START), Answer)
    desk.grant("5")
    assert D(0) == desk.balance == desk.book.pool.balances[Account.OVERDRAFT]
    refusal = desk.ask(Draw(amount=D(1), subject="ann"), START)
    assert isinstance(refusal, Refusal)
    ends = desk.book.pool.counters.period_end
    assert ends is not None
    assert (RefusalCode.OVERDRAFT_EXCEEDED, ends) == (refusal.code, refusal.enough_at)
    assert isinstance(desk.ask(Draw(amount=D(5), subject="bob"), START), Answer)
    desk.grant("5")
    assert isinstance(desk.ask(Draw(amount=D(5), subject="ann"), ends), Answer)
