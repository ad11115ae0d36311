"""Whether the books of a pool are what an oracle says, and whether they hold together."""

from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from farebox_ledger_desk import START, Desk, is_read
from farebox_ledger_oracle import Oracle
from farebox_ledger_told import FAR, floor18
from msgspec.structs import replace

from farebox.ledger.account import Account
from farebox.ledger.book import Book
from farebox.ledger.command import Answer, Draw
from farebox.ledger.decide import check
from farebox.ledger.grant import GrantStatus
from farebox.ledger.hold import HoldStatus

D = Decimal
HELD = Account.HELD


def part_of(amount: Decimal, share: str) -> Decimal:
    return floor18(Fraction(amount) * Fraction(share))


def facts_of(answer: Answer) -> dict[str, Any]:
    return {
        "operation": answer.operation,
        "amount": answer.amount,
        "covered": answer.covered,
        "beyond": {account.value: amount for account, amount in answer.beyond.items()},
        "available": answer.available,
        "over_limit": answer.over_limit,
        "hold": answer.hold,
        "expires": answer.expires_at,
    }


def compare_books(desk: Desk, oracle: Oracle) -> None:
    pool = desk.book.pool
    moved = [
        (t.time, t.reason.value, t.source.value, t.target.value, t.amount, t.grant)
        for t in desk.transfers
    ]
    assert oracle.log == moved
    assert {a.value: oracle.balance(a.value) for a in Account} == pool.balances
    waits = {
        None: GrantStatus.ACTIVE,
        "time": GrantStatus.SCHEDULED,
        "payment": GrantStatus.PENDING,
        "never": GrantStatus.VOIDED,
    }
    stands = {
        number: waits["never" if one["voided"] else one["waits"]]
        for number, one in oracle.grants.items()
    }
    assert {
        number: (one["left"], oracle.held(number), stands[number], one["expires"], one["cost"])
        for number, one in oracle.grants.items()
        if oracle.is_open(one)
    } == {
        number: (one.available, one.held, one.status, one.expires_at or FAR, one.cost)
        for number, one in desk.book.grants.items()
    }
    assert {
        number: (one["amount"], one["ends"])
        for number, one in oracle.holds.items()
        if one["status"] == "open"
    } == {number: (one.amount, one.expires_at) for number, one in desk.book.holds.items()}
    for number, hold in desk.book.holds.items():
        taken = [
            (t["where"], t["amount"], t["grant"]) for t in oracle.held_by(number) if t["amount"]
        ]
        assert taken == [(one.account.value, one.amount, one.grant) for one in hold.slices]
    counters = pool.counters
    assert oracle.count() == counters.used
    assert oracle.count("overage") == counters.overage
    assert oracle.count("burst") == counters.burst
    assert oracle.count("source") == counters.unlimited
    assert oracle.spend() == counters.spend
    for key, share in desk.book.shares.by_key.items():
        assert oracle.count(share=key) == share.used
        assert oracle.lent.get(key, D(0)) == share.lent
        assert oracle.beyond_of(key) == share.beyond
    for number, one in desk.book.recurrences.items():
        assert oracle.recurrences[number]["next"] == (one.next_at or FAR)


def sums_and_chains(desk: Desk) -> None:
    """Every transfer keeps both balances after it; no unit appears, vanishes or is lent twice."""
    balances = dict.fromkeys(Account, D(0))
    grants: dict[int, Decimal] = {}
    last = START
    for place, one in enumerate(desk.transfers, 1):
        assert place == one.sequence
        assert last <= one.time
        last = one.time
        balances[one.source] -= one.amount
        balances[one.target] += one.amount
        after = {one.source: balances[one.source], one.target: balances[one.target]}
        if one.grant is not None and Account.GRANT in after:
            sign = 1 if one.target is Account.GRANT else -1
            grants[one.grant] = grants.get(one.grant, D(0)) + sign * one.amount
            after[Account.GRANT] = grants[one.grant]
        assert (after[one.source], after[one.target]) == (one.source_after, one.target_after)
        assert balances[Account.GRANT] == one.available_after
        assert min(grants.values(), default=D(0)) >= 0
    assert balances == desk.book.pool.balances
    assert 0 == sum(balances.values())
    assert balances[Account.GRANT] == sum(
        (one.available for one in desk.book.grants.values()), D(0)
    )
    assert balances[HELD] == sum((one.amount for one in desk.book.holds.values()), D(0))
    rows = {n: one for n, one in desk.grants.items() if is_read(one)}
    assert rows == desk.book.grants
    assert {n: one for n, one in desk.holds.items() if one.status is HoldStatus.OPEN} == (
        desk.book.holds
    )


def checked(book: Book, command: Draw, at: datetime) -> Any:
    """Check a command by a book that is not thrown away: without the purchase made for it."""
    policy = book.pool.policy
    book.pool.policy = replace(policy, top_up=None)
    outcome = check(book, command, at)
    book.pool.policy = policy
    return outcome
