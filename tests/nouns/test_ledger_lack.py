"""What a pool is said to lack is what lets a refused request through, once it has come."""

from copy import deepcopy
from datetime import timedelta
from decimal import Decimal

import pytest
from farebox_ledger_desk import START, Desk
from hypothesis import given
from hypothesis import strategies as st

from farebox.ledger.administer import move_units
from farebox.ledger.allotment import Allotment
from farebox.ledger.command import Answer, Draw
from farebox.ledger.lack import WANTS_UNITS, Lack, lack_of
from farebox.ledger.license import LicenseTerm
from farebox.ledger.policy import Burst, Limit, LimitMode, Policy, Refill
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.ledger.transfer import Cause
from farebox.money.rounding import exact

pytestmark = pytest.mark.usefixtures("exactly")
D = Decimal
SUBJECTS = ("ann", "team", "rest", None)


def refusal_of(desk: Desk, amount: int, subject: str | None = None) -> Refusal:
    found = desk.ask(Draw(amount=D(amount), subject=subject), START)
    assert isinstance(found, Refusal), found
    return found


def lack(desk: Desk, amount: int, subject: str | None = None) -> tuple[RefusalCode, Lack | None]:
    refusal = refusal_of(desk, amount, subject)
    return refusal.code, lack_of(desk.book, refusal, D(amount), subject)


def test_a_hard_limit_lacks_what_is_not_there() -> None:
    desk = Desk()
    desk.grant("10")
    desk.ask(Draw(amount=D(4)), START)
    assert (RefusalCode.INSUFFICIENT_BALANCE, Lack(D(3), D(13))) == lack(desk, 9)


def test_what_may_be_borrowed_need_not_be_bought() -> None:
    desk = Desk(Policy(limit=Limit(mode=LimitMode.OVERDRAFT, units=D(10))))
    desk.ask(Draw(amount=D(4)), START)
    # Six may still be borrowed; a grant for the whole period repays the four first.
    assert (RefusalCode.OVERDRAFT_EXCEEDED, Lack(D(3), D(17))) == lack(desk, 9)


def test_units_help_where_a_spend_cap_bounds_what_is_beyond_them() -> None:
    limit = Limit(mode=LimitMode.OVERAGE, price=D(2), spend_cap=D(10))
    desk = Desk(Policy(limit=limit, currency="EUR"))
    assert (RefusalCode.SPEND_CAP_EXCEEDED, Lack(D(2), D(7))) == lack(desk, 7)


def test_a_move_out_of_a_license_that_is_over_lacks_only_what_is_not_there() -> None:
    desk, other = Desk(), Desk(key="other")
    desk.grant("10")
    desk.book.pool.license = LicenseTerm("L-1", START - timedelta(days=2), START)
    refusal = move_units(desk.book, other.book, D(12), START, Cause(START))
    assert isinstance(refusal, Refusal)
    assert Lack(D(2), D(12)) == lack_of(desk.book, refusal, D(12), borrow=False)


def test_what_is_kept_for_others_has_to_come_besides() -> None:
    desk = Desk(shares=[Allotment(key="team", guarantee=D(8))])
    desk.grant("10")
    assert (RefusalCode.GUARANTEE_RESERVED, Lack(D(3), D(13))) == lack(desk, 5, "ann")


def test_shares_by_weight_keep_their_part_of_what_comes() -> None:
    desk = Desk(shares=[Allotment(key="team", weight=1), Allotment(key="rest", weight=3)])
    desk.grant("20")
    assert (RefusalCode.GUARANTEE_RESERVED, Lack(D(8), D(28))) == lack(desk, 7, "team")


def test_what_shares_that_gave_way_get_first_is_searched_for() -> None:
    shares = [Allotment(key="team", guarantee=D(60)), Allotment(key="rest", guarantee=D(60))]
    desk = Desk(shares=shares)
    desk.grant("100")
    code, found = lack(desk, 5)
    assert RefusalCode.GUARANTEE_RESERVED == code
    assert found is not None
    assert found.missing is not None
    assert D(25) <= found.missing <= D("25.0001")


def test_where_all_that_comes_is_kept_for_others_no_number_helps() -> None:
    desk = Desk(shares=[Allotment(key="team", weight=1)])
    desk.grant("20")
    assert (RefusalCode.GUARANTEE_RESERVED, Lack(None, None)) == lack(desk, 1, "ann")


@pytest.mark.parametrize(
    ("desk", "code"),
    [
        (Desk(Policy(refill=Refill(amount=D(1), seconds=1, capacity=D(5)))), "rate_limited"),
        (Desk(shares=[Allotment(key="ann", cap=D(5))]), "allotment_cap_exceeded"),
        (Desk(Policy(unallotted=False), shares=[Allotment(key="x")]), "allotment_missing"),
        (Desk(subject="bob"), "subject_not_served"),
    ],
)
def test_units_do_not_help_against_other_refusals(desk: Desk, code: str) -> None:
    assert (code, None) == lack(desk, 9, "ann")


def test_a_closed_pool_takes_no_units() -> None:
    desk = Desk()
    desk.close()
    assert (RefusalCode.POOL_CLOSED, None) == lack(desk, 9)


amounts = st.integers(0, 12)
shares = st.lists(
    st.builds(
        Allotment,
        key=st.sampled_from(["ann", "team", "rest"]),
        guarantee=amounts.map(D),
        weight=st.integers(0, 3),
        cap=st.none() | amounts.map(D),
        overdraft=st.none() | amounts.map(D),
    ),
    unique_by=lambda one: one.key,
    max_size=3,
)
bounds = st.none() | amounts.map(D)
unpriced = st.sampled_from([LimitMode.HARD, LimitMode.OVERDRAFT, LimitMode.SOFT])
limits = st.builds(Limit, mode=unpriced, units=bounds) | st.builds(
    Limit,
    mode=st.just(LimitMode.OVERAGE),
    units=bounds,
    price=st.just(D("0.5")),
    spend_cap=bounds,
)
bursts = st.none() | st.builds(Burst, units=amounts.map(D), price=st.just(D("0.3")))


@given(
    limit=limits,
    burst=bursts,
    shared=shares,
    granted=amounts,
    before=st.lists(st.tuples(st.integers(1, 9), st.sampled_from(SUBJECTS)), max_size=4),
    amount=st.integers(1, 40),
    subject=st.sampled_from(SUBJECTS),
)
def test_what_is_missing_lets_it_through_and_where_nothing_is_shared_no_less_does(
    limit: Limit,
    burst: Burst | None,
    shared: list[Allotment],
    granted: int,
    before: list[tuple[int, str | None]],
    amount: int,
    subject: str | None,
) -> None:
    """The oracle is the ledger itself: the units come, and it is asked again."""
    with exact():
        desk = Desk(Policy(limit=limit, burst=burst, currency="EUR"), shares=shared)
        if granted:
            desk.grant(D(granted))
        for units, who in before:
            desk.ask(Draw(amount=D(units), subject=who), START)
        request = Draw(amount=D(amount), subject=subject)
        refusal = desk.ask(request, START)
        if not isinstance(refusal, Refusal):
            return
        found = lack_of(desk.book, refusal, request.amount, subject)
        if refusal.code not in WANTS_UNITS:
            assert found is None
            return
        assert found is not None
        if found.missing is None:
            return
        richer = deepcopy(desk)
        richer.grant(found.missing)
        assert isinstance(richer.ask(request, START), Answer)
        if not shared and found.missing > D("0.001"):
            poorer = deepcopy(desk)
            poorer.grant(found.missing - D("0.001"))
            assert isinstance(poorer.ask(request, START), Refusal)


def move(desk: Desk, amount: int) -> Refusal | None:
    return move_units(desk.book, Desk().book, D(amount), START, Cause(START))


def test_what_repays_a_debt_cannot_be_moved() -> None:
    desk = Desk(Policy(limit=Limit(mode=LimitMode.OVERDRAFT, units=D(10))))
    desk.ask(Draw(amount=D(4)), START)
    refusal = move(desk, 9)
    assert isinstance(refusal, Refusal)
    assert Lack(D(13), D(17)) == lack_of(desk.book, refusal, D(9), borrow=False)


def test_what_a_share_has_borrowed_is_its_own_once_it_is_repaid() -> None:
    """Of two units that come one repays, and the other is kept for the only share with a weight."""
    limit = Limit(mode=LimitMode.OVERDRAFT, units=D(1))
    desk = Desk(Policy(limit=limit), shares=[Allotment(key="ann", weight=1)])
    desk.ask(Draw(amount=D(1), subject="ann"), START)
    refusal = move(desk, 1)
    assert isinstance(refusal, Refusal)
    assert Lack(None, None) == lack_of(desk.book, refusal, D(1), borrow=False)


@given(
    limit=limits,
    shared=shares,
    granted=amounts,
    before=st.lists(st.tuples(st.integers(1, 9), st.sampled_from(SUBJECTS)), max_size=4),
    amount=st.integers(1, 40),
)
def test_what_is_missing_lets_a_move_through_and_where_nothing_is_shared_no_less_does(
    limit: Limit,
    shared: list[Allotment],
    granted: int,
    before: list[tuple[int, str | None]],
    amount: int,
) -> None:
    with exact():
        desk = Desk(Policy(limit=limit, currency="EUR"), shares=shared)
        if granted:
            desk.grant(D(granted))
        for units, who in before:
            desk.ask(Draw(amount=D(units), subject=who), START)
        refusal = move(desk, amount)
        if refusal is None:
            return
        found = lack_of(desk.book, refusal, D(amount), borrow=False)
        if found is None or found.missing is None:
            return
        richer = deepcopy(desk)
        richer.grant(found.missing)
        assert move(richer, amount) is None
        if not shared and found.missing > D("0.001"):
            poorer = deepcopy(desk)
            poorer.grant(found.missing - D("0.001"))
            assert isinstance(move(poorer, amount), Refusal)
