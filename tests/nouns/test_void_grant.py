"""A grant that was taken back: what of it comes back later is taken back too."""

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from farebox_ledger_desk import START, Desk

from farebox.ledger.account import Account
from farebox.ledger.administer import expire_grant, fail_grant, void_grant
from farebox.ledger.command import Answer, Draw, Release, Reserve, Settle
from farebox.ledger.grant import Grant, GrantStatus
from farebox.ledger.policy import Policy
from farebox.ledger.reason import Reason
from farebox.ledger.refusal import Refusal, RefusalCode

pytestmark = pytest.mark.usefixtures("exactly")
LATER = START + timedelta(seconds=30)


def asked(desk: Desk, command: Draw | Reserve) -> int:
    answer = desk.ask(command, START)
    assert isinstance(answer, Answer)
    return answer.operation


def void(desk: Desk, number: int, now: datetime = LATER) -> Grant:
    done = desk.do(void_grant, number, now)
    assert isinstance(done, Grant)
    return done


def returned(desk: Desk) -> list[tuple[Account, Account, Decimal]]:
    voided = [one for one in desk.transfers if one.reason is Reason.GRANT_VOIDED]
    return [(one.source, one.target, one.amount) for one in voided]


@pytest.mark.parametrize("fresh", [False, True], ids=["on books at hand", "on books read anew"])
def test_what_comes_back_to_it_goes_to_where_all_of_it_came_from(fresh: bool) -> None:
    desk = Desk(Policy(undo_seconds=60))
    number = desk.grant("100")
    drawn = asked(desk, Draw(amount=Decimal(20)))
    released, settled, ended = (
        asked(desk, Reserve(amount=Decimal(amount), seconds=seconds))
        for amount, seconds in ((10, 60), (15, 60), (5, 40))
    )
    assert GrantStatus.VOIDED is void(desk, number).status
    for command in (Release(hold=released), Settle(hold=settled, amount=Decimal(9))):
        if fresh:
            desk.reload()
        assert isinstance(desk.ask(command, LATER), Answer)
    assert ended
    if fresh:
        desk.reload()
    assert isinstance(desk.reverse(drawn, LATER + timedelta(seconds=15)), Answer)
    grant, source = Account.GRANT, Account.SOURCE
    assert [
        (grant, source, Decimal(50)),
        (Account.HELD, source, Decimal(10)),
        (Account.HELD, source, Decimal(6)),
        (Account.HELD, source, Decimal(5)),
        (Account.USED, source, Decimal(20)),
    ] == returned(desk)
    balances = desk.book.pool.balances
    assert (Decimal(9), Decimal(0), Decimal(-9), Decimal(0)) == tuple(
        balances[one] for one in (Account.USED, Account.GRANT, source, Account.EXPIRED)
    )
    stands = desk.grants[number]
    assert (GrantStatus.VOIDED, Decimal(0), Decimal(0)) == (
        stands.status,
        stands.available,
        stands.held,
    )
    desk.reload()
    assert {} == desk.book.grants


def test_it_is_over_from_then_on_or_from_when_it_was_anyhow() -> None:
    for ends, over in ((None, LATER), (LATER + timedelta(days=1), LATER), (START, START)):
        desk = Desk()
        expires_at = None if ends is None else max(ends, START + timedelta(seconds=1))
        number = desk.grant("10", expires_at=expires_at)
        asked(desk, Reserve(amount=Decimal(4), seconds=600))
        expected = START + timedelta(seconds=1) if over is START else over
        assert expected == void(desk, number).expires_at


def test_taken_back_again_it_stays_as_it_is_and_does_not_expire() -> None:
    desk = Desk()
    number = desk.grant("10")
    asked(desk, Reserve(amount=Decimal(4), seconds=600))
    void(desk, number)
    again = void(desk, number, LATER + timedelta(seconds=5))
    assert (GrantStatus.VOIDED, LATER, Decimal(4)) == (again.status, again.expires_at, again.held)
    refused = desk.do(expire_grant, number, LATER + timedelta(seconds=5))
    assert isinstance(refused, Refusal)
    assert RefusalCode.GRANT_CLOSED == refused.code
    assert 1 == len(returned(desk))


def test_one_that_waits_to_be_paid_is_not_paid_whichever_way_it_ends() -> None:
    ends = START + timedelta(seconds=20)
    for expiring in (True, False):
        desk = Desk()
        fields = {"pending": True, "expires_at": ends} if expiring else {"pending": True}
        number = desk.grant("10", **fields)
        if expiring:
            desk.look(LATER)
        else:
            desk.do(fail_grant, number, LATER)
        assert [Reason.GRANT_PENDING, Reason.GRANT_UNPAID] == [one.reason for one in desk.transfers]
        assert GrantStatus.CLOSED is desk.grants[number].status
