"""A pool buys by itself: for whoever it has too little for, within its bounds, never twice."""

from datetime import timedelta
from decimal import Decimal

import pytest
from farebox_ledger_desk import START, Desk
from msgspec.structs import replace

from farebox.ledger.account import Account
from farebox.ledger.allotment import Allotment
from farebox.ledger.command import Answer, Draw, Extend, Reserve, Settle
from farebox.ledger.decide import check
from farebox.ledger.grant import Grant, GrantStatus
from farebox.ledger.hold import Slice
from farebox.ledger.license import LicenseTerm
from farebox.ledger.policy import Limit, LimitMode, Payment, Policy, TopUp
from farebox.ledger.reason import Reason
from farebox.ledger.refusal import Refusal, RefusalCode

D = Decimal
LACKS = RefusalCode.INSUFFICIENT_BALANCE
HOUR = timedelta(hours=1)

pytestmark = pytest.mark.usefixtures("exactly")


def desk_with(units: str, *, below: str = "10", amount: str = "100", **terms: object) -> Desk:
    terms.setdefault("times", 5)
    top_up = TopUp(below=D(below), amount=D(amount), cost=D(7), **terms)  # type: ignore[arg-type]
    desk = Desk(Policy(top_up=top_up))
    if D(units):
        desk.grant(units)
    return desk


def bought(desk: Desk) -> list[Grant]:
    numbers = [one.grant for one in desk.transfers if one.reason is Reason.TOPPED_UP]
    return [desk.grants[number] for number in numbers if number is not None]


def test_a_request_that_leaves_too_little_buys_after_it() -> None:
    desk = desk_with("20")
    assert isinstance(desk.ask(Draw(amount=D(10)), START), Answer)
    assert [] == bought(desk)
    answer = desk.ask(Draw(amount=D(1)), START)
    assert isinstance(answer, Answer)
    assert (D(9), D(109)) == (answer.available, desk.book.pool.available)
    assert 1 == len(bought(desk))


def test_a_request_for_more_than_there_is_buys_first_and_goes_through() -> None:
    desk = desk_with("20")
    answer = desk.ask(Draw(amount=D(50)), START)
    assert isinstance(answer, Answer)
    assert (D(50), {}, D(70)) == (answer.covered, answer.beyond, answer.available)
    assert [D(100)] == [one.amount for one in bought(desk)]


def test_a_pool_that_never_had_anything_buys_for_its_first_request() -> None:
    desk = desk_with("0")
    assert isinstance(desk.ask(Draw(amount=D(100)), START), Answer)
    assert D(0) <= desk.book.pool.available


def test_as_many_are_bought_as_let_a_request_through() -> None:
    desk = desk_with("20", times=3)
    answer = desk.ask(Draw(amount=D(250)), START)
    assert isinstance(answer, Answer)
    assert (D(250), D(70), 3) == (answer.covered, answer.available, len(bought(desk)))
    again = desk_with("20", times=3)
    assert isinstance(again.ask(Draw(amount=D(321)), START), Refusal)
    assert [] == bought(again)


def test_a_request_that_the_purchase_would_not_let_through_buys_nothing() -> None:
    desk = desk_with("20", times=1)
    refusal = desk.ask(Draw(amount=D("120.000000000000000001")), START)
    assert isinstance(refusal, Refusal)
    assert (LACKS, D(20)) == (refusal.code, refusal.left)
    assert [] == bought(desk)


def test_a_pool_that_is_below_its_threshold_buys_even_where_that_is_not_enough() -> None:
    """For whoever asks next: it would have bought earlier, had it been allowed to."""
    desk = desk_with("5")
    refusal = desk.ask(Draw(amount=D(1000)), START)
    assert isinstance(refusal, Refusal)
    assert (LACKS, D(105)) == (refusal.code, refusal.left)
    assert 1 == len(bought(desk))
    assert isinstance(desk.ask(Draw(amount=D(90)), START), Answer)


def test_units_that_are_kept_for_another_share_are_there_and_buy_nothing() -> None:
    top_up = TopUp(below=D(10), amount=D(100), cost=D(7), times=5)
    desk = Desk(Policy(top_up=top_up), shares=[Allotment(key="ann", guarantee=D(50))])
    desk.grant("60")
    refusal = desk.ask(Draw(amount=D(20), subject="bob"), START)
    assert isinstance(refusal, Refusal)
    assert (RefusalCode.GUARANTEE_RESERVED, []) == (refusal.code, bought(desk))
    assert isinstance(desk.ask(Draw(amount=D(61), subject="bob"), START), Answer)
    assert 1 == len(bought(desk))


def test_bounds_hold_for_whoever_lacks_units() -> None:
    desk = desk_with("0", times=2, cool_off_seconds=3600)
    assert isinstance(desk.ask(Draw(amount=D(100)), START), Answer)
    assert isinstance(desk.ask(Draw(amount=D(1)), START + HOUR / 2), Refusal)
    assert isinstance(desk.ask(Draw(amount=D(100)), START + HOUR), Answer)
    assert isinstance(desk.ask(Draw(amount=D(1)), START + 2 * HOUR), Refusal)
    assert 2 == len(bought(desk))


def test_one_that_is_to_be_paid_first_waits_and_is_asked_for_once() -> None:
    desk = desk_with("20", payment=Payment.PREPAID)
    for _ in range(3):
        assert isinstance(desk.ask(Draw(amount=D(50)), START), Refusal)
    assert [GrantStatus.PENDING] == [one.status for one in bought(desk)]


def test_holds_and_their_extension_buy_too() -> None:
    desk = desk_with("20")
    held = desk.ask(Reserve(amount=D(60)), START)
    assert isinstance(held, Answer)
    assert held.hold is not None
    more = desk.ask(Extend(hold=held.hold, amount=D(150)), START)
    assert isinstance(more, Answer)
    assert (D(150), D(10)) == (more.covered, desk.book.pool.available)
    assert 2 == len(bought(desk))


def test_what_units_would_not_help_against_buys_nothing() -> None:
    desk = desk_with("0")
    assert isinstance(desk.ask(Extend(hold=99, amount=D(1)), START), Refusal)
    assert isinstance(desk.ask(Reserve(amount=D(1), seconds=10**9), START), Refusal)
    desk.close()
    assert isinstance(desk.ask(Draw(amount=D(1)), START), Refusal)
    assert [] == bought(desk)


@pytest.mark.parametrize(
    "limit",
    [
        Limit(mode=LimitMode.SOFT),
        Limit(mode=LimitMode.OVERDRAFT, units=D(30)),
        Limit(mode=LimitMode.OVERAGE, price=D(1), units=D(30)),
    ],
    ids=lambda limit: limit.mode.value,
)
def test_what_is_missing_is_bought_before_anything_goes_beyond_the_grants(limit: Limit) -> None:
    desk = Desk(Policy(limit=limit, top_up=TopUp(below=D(0), amount=D(100), cost=D(7))))
    desk.grant("20")
    for amount, covered, beyond in ((D(50), D(50), D(0)), (D(90), D(70), D(20))):
        answer = desk.ask(Draw(amount=amount), START)
        assert isinstance(answer, Answer)
        assert (covered, beyond) == (answer.covered, sum(answer.beyond.values()))
    assert 1 == len(bought(desk))
    few = Desk(Policy(limit=limit, top_up=TopUp(below=D(1), amount=D(1), cost=D(1))))
    few.grant("21")
    answer = few.ask(Draw(amount=D(23)), START)
    assert isinstance(answer, Answer)
    assert (D(22), D(1)) == (answer.covered, sum(answer.beyond.values()))


def test_a_purchase_takes_nothing_from_a_request_that_is_granted_without_it() -> None:
    """What somebody else owes would be repaid by it, with units that are kept for the asker."""
    limit = Limit(mode=LimitMode.OVERDRAFT, units=D(38))
    top_up = TopUp(below=D(0), amount=D(10), cost=D(7))
    shares = [Allotment(key="a"), Allotment(key="c", guarantee=D(30), overdraft=D(10))]
    desk = Desk(Policy(limit=limit, top_up=top_up), shares=shares)
    desk.grant("30")
    plain = Desk(Policy(limit=limit), shares=shares)
    plain.grant("30")
    for one in (plain, desk):
        one.ask(Draw(amount=D(28), subject="a"), START)
        answer = one.ask(Draw(amount=D(32), subject="c"), START)
        assert isinstance(answer, Answer)


def test_what_was_used_already_is_bought_as_far_as_may_be() -> None:
    """More than was held, and what usage events burn."""
    for amount, times, beyond in ((D(220), 1, D(100)), (D(220), 9, D(0))):
        used = desk_with("20", times=times)
        outcome = used.ask(Draw(amount=amount, forced=True), START)
        assert isinstance(outcome, Answer)
        settled = desk_with("20", times=times)
        held = settled.ask(Reserve(amount=D(15)), START)  # five are left, so it buys at once
        assert isinstance(held, Answer)
        assert held.hold is not None
        done = settled.ask(Settle(hold=held.hold, amount=amount), START)
        assert isinstance(done, Answer)
        assert [beyond] * 2 == [sum(one.beyond.values()) for one in (outcome, done)]
        operations = [one.operation for one in settled.transfers]
        assert sorted(operations) == operations, "the entries of an operation are a row"


def test_nothing_is_bought_that_nobody_may_take() -> None:
    over = LicenseTerm("L-1", START, START)
    for pool in ({"limit": Limit(mode=LimitMode.UNLIMITED)}, {"license": over}):
        desk = desk_with("20")
        desk.book.pool.license = pool.get("license")  # type: ignore[assignment]
        if limit := pool.get("limit"):
            desk.book.pool.policy = replace(desk.book.pool.policy, limit=limit)
        desk.ask(Draw(amount=D(15), forced=True), START)
        desk.ask(Draw(amount=D(15)), START)
        assert [] == bought(desk)


def test_a_check_answers_as_the_request_would() -> None:
    for amount, yes in ((D(50), True), (D(120), True), (D(521), False)):
        for prepaid, payment in ((False, Payment.INVOICE), (True, Payment.PREPAID)):
            asked, looked = (desk_with("20", payment=payment) for _ in range(2))
            answer = asked.ask(Draw(amount=amount), START)
            outcome = check(looked.book, Draw(amount=amount), START)
            granted = yes and not prepaid
            assert granted is isinstance(answer, Answer)
            assert granted is not isinstance(outcome, Refusal)
            if not isinstance(outcome, Refusal):
                parts = [Slice(Account.GRANT, D(20), 1), Slice(Account.GRANT, amount - 20, 2)]
                assert parts == list(outcome)


def test_a_refusal_says_when_the_pool_may_buy_again() -> None:
    desk = desk_with("0", times=2, cool_off_seconds=3600)
    assert isinstance(desk.ask(Draw(amount=D(100)), START), Answer)
    for refills_at in (START + HOUR, desk.book.pool.counters.period_end):
        refusal = desk.ask(Draw(amount=D(100)), desk.book.pool.as_of)
        assert isinstance(refusal, Refusal)
        assert refills_at == refusal.refills_at
        if refills_at == START + HOUR:
            assert isinstance(desk.ask(Draw(amount=D(100)), refills_at), Answer)
    prepaid = desk_with("0", payment=Payment.PREPAID)
    for _ in range(2):
        refusal = prepaid.ask(Draw(amount=D(1)), START)
        assert isinstance(refusal, Refusal)
        assert refusal.refills_at is None


@pytest.mark.parametrize("mode", [LimitMode.HARD, LimitMode.OVERAGE])
def test_while_a_prepaid_one_waits_the_limit_answers_whoever_lacks_units(mode: LimitMode) -> None:
    desk = desk_with("20", payment=Payment.PREPAID)
    limit = Limit(mode=mode, price=None if mode is LimitMode.HARD else D(2))
    desk.book.pool.policy = replace(desk.book.pool.policy, limit=limit)
    outcome = desk.ask(Draw(amount=D(50)), START)
    assert [GrantStatus.PENDING] == [one.status for one in bought(desk)]
    if mode is LimitMode.HARD:
        assert isinstance(outcome, Refusal)
        assert LACKS is outcome.code
    else:
        assert isinstance(outcome, Answer)
        assert {Account.OVERAGE: D(30)} == outcome.beyond
