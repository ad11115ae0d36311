"""Moves between pools are made by those who run them: no license is asked, and nobody buys."""

from datetime import timedelta
from decimal import Decimal

import pytest
from farebox_ledger_desk import START, Desk

from farebox.ledger.administer import move_units
from farebox.ledger.command import Answer, Draw
from farebox.ledger.license import LicenseTerm
from farebox.ledger.policy import Policy, TopUp
from farebox.ledger.reason import Reason
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.ledger.transfer import Cause

D = Decimal

pytestmark = pytest.mark.usefixtures("exactly")


def moved(giving: Desk, taking: Desk, amount: int) -> Refusal | None:
    return move_units(giving.book, taking.book, D(amount), START, Cause(START))


def available(*desks: Desk) -> list[Decimal]:
    return [one.book.pool.available for one in desks]


@pytest.mark.parametrize(
    ("term", "code"),
    [
        (LicenseTerm("L-1", START + timedelta(seconds=1)), RefusalCode.LICENSE_NOT_BEGUN),
        (LicenseTerm("L-1", START - timedelta(days=1), START), RefusalCode.LICENSE_OVER),
        (LicenseTerm("L-1", START, revoked_at=START), RefusalCode.LICENSE_REVOKED),
    ],
)
def test_units_of_a_license_that_is_not_in_force_may_be_moved_in_and_out(
    term: LicenseTerm, code: RefusalCode
) -> None:
    """Nobody gets them to use, and they are not locked in."""
    licensed, other = Desk(), Desk(key="other")
    licensed.book.pool.license = term
    licensed.grant("5")
    refusal = licensed.ask(Draw(amount=D(5)), START)
    assert isinstance(refusal, Refusal)
    assert code is refusal.code
    assert moved(licensed, other, 5) is None
    assert [D(0), D(5)] == available(licensed, other)
    assert moved(other, licensed, 2) is None
    assert [D(2), D(3)] == available(licensed, other)
    refusal = moved(licensed, other, 3)
    assert isinstance(refusal, Refusal)
    assert (RefusalCode.INSUFFICIENT_BALANCE, D(2)) == (refusal.code, refusal.left)


def test_a_move_buys_nothing_and_the_next_request_does() -> None:
    """Nobody buys to give away, nor for a pool that is emptied in order to be left."""
    top_up = TopUp(below=D(10), amount=D(100), cost=D(7))
    giving, taking = Desk(Policy(top_up=top_up)), Desk(key="other")
    giving.grant("20")
    assert moved(giving, taking, 15) is None
    assert isinstance(moved(giving, taking, 50), Refusal)
    assert [D(5), D(15)] == available(giving, taking)
    assert isinstance(giving.ask(Draw(amount=D(1)), START), Answer)
    assert [D(104), D(15)] == available(giving, taking)
    assert 1 == sum(one.reason is Reason.TOPPED_UP for one in giving.transfers)
