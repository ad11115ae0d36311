"""Rows of the ledger: written whole or not at all, and read back as they were."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from farebox_pools import (
    HARD,
    OVERAGE,
    OVERDRAFT,
    REFILLED,
    TOPPED_UP,
    Pools,
    digest,
    live_through_two_months,
    refused,
)

from farebox.flows.decide_pools import Asked, Round
from farebox.flows.share_pool import Share
from farebox.ledger.account import Account
from farebox.ledger.book import Book
from farebox.ledger.command import Answer, Command, Draw, Extend, Release, Reserve, Settle
from farebox.ledger.decide import apply
from farebox.ledger.policy import Policy
from farebox.ledger.refusal import Refusal
from farebox.money.rounding import exact
from farebox.postgres.book import Stated, read_books
from farebox.postgres.posting import Posted, Posting, post_call, posted
from farebox.postgres.session import Pool, transaction

TABLES = (
    "pool",
    "pool_grant",
    "pool_recurrence",
    "hold",
    "allotment",
    "transfer",
    "refusal",
    "pool_touched",
)


def everything(pools: Pools) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row that the organization has in the ledger."""
    return {
        table: sorted(pools.rows(f"select to_jsonb(t)::text from {table} t")) for table in TABLES
    }


@contextmanager
def nothing_is_written(pools: Pools) -> Iterator[None]:
    before = everything(pools)
    yield
    assert before == everything(pools)


def read(pools: Pools, *keys: str) -> list[Stated]:
    with transaction(pools.pool, pools.organization_id, snapshot=True) as connection:
        ids = [pools.ids[key] for key in keys]
        found = read_books(connection, pools.organization_id, ids)
    return [found[pool_id] for pool_id in ids]


def decide(pools: Pools, stated: Stated, command: Command) -> Answer | Refusal:
    with exact():
        return apply(stated.book, command, pools.now)


def draw(pools: Pools, stated: Stated, amount: int, **fields: Any) -> Answer:
    answer = decide(pools, stated, Draw(amount=Decimal(amount), **fields))
    assert isinstance(answer, Answer)
    return answer


def post(pools: Pools, *changed: Stated, **more: Any) -> Posted:
    """Commit what was decided on these books; they do not learn of it."""
    postings = [
        Posting(one.pool_id, one.version, one.book.changes(), one.book.next_due, one.sequence + 1)
        for one in changed
    ]
    statement, parameters = post_call(pools.organization_id, postings, **more)
    with transaction(pools.pool, pools.organization_id) as connection:
        return posted(connection.execute(statement, parameters).fetchone())


def test_a_commit_on_an_old_version_writes_nothing(two: Pools) -> None:
    (early,), (late,) = read(two, "one"), read(two, "one")
    draw(two, early, 1, key="early")
    draw(two, late, 2, key="late")
    assert post(two, early)
    with nothing_is_written(two):
        assert Posted(True, set()) == post(two, late)


def test_of_two_pools_one_is_old_and_neither_is_written(two: Pools) -> None:
    books = read(two, "one", "two")
    two.draw("two", 5)
    for one in books:
        draw(two, one, 1)
    with nothing_is_written(two):
        assert Posted(True, set()) == post(two, *books)


def test_a_refusal_makes_a_version_too(two: Pools) -> None:
    """So whoever decided before it, and is told of it, cannot commit after it."""
    (stated,) = read(two, "one")
    draw(two, stated, 1, key="lost")
    assert "insufficient_balance" == refused(two.ask("one", Draw(amount=Decimal(101), key="lost")))
    with nothing_is_written(two):
        assert Posted(True, set()) == post(two, stated)


def test_a_known_key_writes_nothing_and_is_named(two: Pools) -> None:
    two.draw("one", 1, key="a")
    two.draw("two", 1, key="b")
    one, other = read(two, "one", "two")
    for key in ("a", "c", "b"):
        draw(two, one, 1, key=key)
    draw(two, other, 2, key="b")
    draw(two, other, 2)
    with nothing_is_written(two):
        known = {(two.ids["one"], "a"), (two.ids["two"], "b")}
        assert Posted(False, known) == post(two, one, other)


def test_the_key_of_a_refused_request_is_looked_for(two: Pools) -> None:
    """What it asked for may have been granted by an earlier try, whose answer was lost."""
    two.draw("one", 1, key="granted")
    (stated,) = read(two, "one")
    decide(two, stated, Draw(amount=Decimal(1000), key="granted"))
    pool_id = two.ids["one"]
    with nothing_is_written(two):
        asked = [(pool_id, "granted"), (pool_id, "never"), (two.ids["two"], "granted")]
        assert Posted(False, {(pool_id, "granted")}) == post(two, stated, asked=asked)
    (stated,) = read(two, "one")
    decide(two, stated, Draw(amount=Decimal(1000), key="never"))
    assert post(two, stated, asked=[(pool_id, "never")])


def test_transfers_are_never_changed_nor_removed(two: Pools) -> None:
    for statement in (
        "update transfer set amount = 1",
        "delete from transfer",
        "truncate transfer",
        "delete from pool",
        "delete from pool_grant",
        "delete from hold",
    ):
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege),
            transaction(two.pool, two.organization_id) as connection,
        ):
            connection.execute(statement.encode())


class Waiting(threading.Thread):
    """Commits in a thread of its own, where somebody else holds the pool."""

    def __init__(self, pools: Pools, stated: Stated) -> None:
        super().__init__()
        self._pools, self._stated = pools, stated
        self.answer: Posted | None = None

    def run(self) -> None:
        self.answer = post(self._pools, self._stated)

    def until_it_waits(self, connection: psycopg.Connection) -> None:
        query = "select exists (select from pg_locks where not granted)"
        while connection.execute(query).fetchone() != (True,):
            time.sleep(0.005)


# What another organization has -------------------------------------------------------------------


@pytest.fixture
def other(pool: Pool, new_organization: Callable[[], UUID], two: Pools) -> Pools:
    """Return another organization, with pools of the same keys."""
    found = Pools(pool, new_organization(), two.now)
    for key in ("one", "two"):
        found.put(key)
        found.grant(key, 100)
    found.hold("one", 3)
    return found


def test_a_pool_of_another_organization_is_not_there(two: Pools, other: Pools) -> None:
    foreign = other.ids["one"]
    with transaction(two.pool, two.organization_id) as connection:
        for lock in (False, True):
            assert {} == read_books(connection, two.organization_id, [foreign], lock=lock)
            assert {} == read_books(connection, other.organization_id, [foreign], lock=lock)
        for table in TABLES:
            found = connection.execute(
                f"select count(*) from {table} where organization_id = %s".encode(),
                (other.organization_id,),
            ).fetchone()
            assert (0,) == found, table
    outcome = two.decide(Asked(foreign, Draw(amount=Decimal(1))))[0]
    assert "pool_unknown" == refused(outcome)


def test_a_commit_for_a_pool_of_another_organization_writes_nothing(
    two: Pools, other: Pools
) -> None:
    """Not even among others of one's own; the pool stands at no version at all."""
    (own,), (foreign,) = read(two, "one"), read(other, "one")
    draw(two, own, 1)
    draw(two, foreign, 1)
    with nothing_is_written(two), nothing_is_written(other):
        assert Posted(True, set()) == post(two, own, foreign)


# Round trips --------------------------------------------------------------------------------------


def contents(book: Book) -> dict[str, object]:
    """Return all that a book decides by; two that are equal decide alike."""
    return {
        "pool": book.pool,
        "grants": book.grants,
        "order": [grant.number for grant in book.first_grants(len(book.grants))],
        "holds": book.holds,
        "shares": book.shares.by_key,
        "recurrences": book.recurrences,
    }


def test_books_of_a_world_with_everything_come_back_equal(pools: Pools) -> None:
    """A book that stays in memory and learns of nothing but what is decided on it."""
    live_through_two_months(pools)
    kept = dict(zip(pools.ids, read(pools, *pools.ids), strict=True))
    rng = random.Random(7)
    for step in range(300):
        key = rng.choice(list(pools.ids))
        pools.later(hours=rng.choice((0, 0, 1, 30)))
        stated = kept[key]
        commands = [some_command(rng, stated.book, f"{step}/{n}") for n in range(3)]
        decided = Round(
            {stated.pool_id: stated},
            [Asked(stated.pool_id, command) for command in commands],
            pools.now,
            {},
        )
        with transaction(pools.pool, pools.organization_id) as connection:
            statement, parameters = decided.call(pools.organization_id)
            assert posted(connection.execute(statement, parameters).fetchone())
        decided.committed()
        (again,) = read(pools, key)
        assert contents(stated.book) == contents(again.book)
        assert (stated.version, stated.sequence) == (again.version, again.sequence)
        assert stated.unresolved == again.unresolved
    assert [] == pools.verify()


def some_command(rng: random.Random, book: Book, key: str) -> Command:
    subject = rng.choice((None, "ann", "intern", "rest", "zoë"))
    amount = Decimal(rng.randrange(1, 4000)).scaleb(-2)
    asked: dict[str, Any] = {"key": key, "digest": digest(key), "subject": subject}
    if book.holds and rng.random() < 0.4:
        hold = rng.choice(list(book.holds))
        return rng.choice(
            (
                Settle(hold=hold, amount=amount, **asked),
                Release(hold=hold, **asked),
                Extend(hold=hold, amount=amount, seconds=rng.randrange(1, 86_400), **asked),
            )
        )
    kind = rng.choice((Draw, Draw, Reserve))
    return kind(amount=amount, note='{"what":"ü\\n\\"x"}', used_at=book.pool.as_of, **asked)


@pytest.mark.parametrize("policy", [HARD, OVERAGE, OVERDRAFT, TOPPED_UP, REFILLED])
def test_a_pool_in_which_nothing_happened_comes_back(pools: Pools, policy: Policy) -> None:
    pools.put("new", policy, name="Née", customer=None, metadata={"a": "b"})
    (stated,) = read(pools, "new")
    assert (0, 0, policy) == (stated.version, stated.sequence, stated.book.pool.policy)
    assert dict.fromkeys(Account, 0) == stated.book.pool.balances


def test_a_locked_book_is_the_same_book(pools: Pools) -> None:
    live_through_two_months(pools)
    ids = sorted(pools.ids.values())
    with transaction(pools.pool, pools.organization_id) as connection:
        locked = read_books(connection, pools.organization_id, ids, lock=True)
    assert ids == list(locked)
    for stated in read(pools, *pools.ids):
        assert contents(stated.book) == contents(locked[stated.pool_id].book)


def test_numbers_of_any_size_come_back_to_the_digit(pools: Pools) -> None:
    pools.put("wide")
    pools.grant("wide", "99999999999999999999")
    amounts = [
        Decimal(text) for text in ("1E-18", "12345678901234567890.123456789012345678", "1E+3")
    ]
    for amount in amounts:
        pools.draw("wide", amount)
    rows = pools.rows(
        "select amount, source_after, target_after from transfer where reason = 'drawn'"
        " order by sequence"
    )
    left, used = Decimal("99999999999999999999"), Decimal(0)
    with exact():
        for amount, row in zip(amounts, rows, strict=True):
            left, used = left - amount, used + amount
            assert (amount, left, used) == row
    assert used == pools.book("wide").pool.balances[Account.USED]


def test_a_recurrence_that_ended_is_not_written_over_by_a_new_one(pools: Pools) -> None:
    pools.put("recurring")
    first = pools.recur("recurring", "first", 10)
    pools.stop_recurring("recurring", "first")
    pools.later(days=40)
    second = pools.recur("recurring", "second", 20)
    assert first.number != second.number
    rows = pools.rows("select key, number, definition->>'key' from pool_recurrence order by key")
    assert [("first", first.number, "first"), ("second", second.number, "second")] == rows
    assert [] == pools.verify()


def test_shares_that_are_taken_away_stay_in_the_book_as_long_as_their_use_counts(
    pools: Pools,
) -> None:
    pools.put("shared")
    pools.grant("shared", 10)
    pools.share("shared", Share(key="a"), *(Share(key=key, parent="a") for key in "bc"))
    pools.draw("shared", 3, subject="b")
    pools.share("shared", Share(key="a"))
    shares = pools.book("shared").shares
    assert ["a"] == [one.key for one in shares.present()]
    assert {"a": Decimal(3), "b": Decimal(3)} == {
        key: one.used for key, one in shares.by_key.items()
    }
    pools.later(days=31)
    pools.draw("shared", 1, subject="b")
    assert ["a"] == list(pools.book("shared").shares.by_key)


def test_what_touched_a_pool_is_told_once_a_commit(two: Pools) -> None:
    before = two.rows("select count(*) from pool_touched")[0][0]
    two.decide(*[Asked(two.ids[key], Draw(amount=Decimal(1))) for key in ("one", "two", "one")])
    two.ask("one", Draw(amount=Decimal(1000)))
    rows = two.rows("select pool_ids from pool_touched order by touched_id offset %s", before)
    assert [sorted(two.ids.values())] == [sorted(ids) for (ids,) in rows]


def test_who_waits_for_a_pool_sees_what_was_committed_before(two: Pools) -> None:
    """The lock is waited for, and what stands then is what counts, not what stood at the start."""
    (stated,) = read(two, "one")
    draw(two, stated, 1)
    with transaction(two.pool, two.organization_id) as holder:
        read_books(holder, two.organization_id, [two.ids["one"]], lock=True)
        waiting = Waiting(two, stated)
        waiting.start()
        waiting.until_it_waits(holder)
        holder.execute(
            "update pool set version = version + 1 where pool_id = %s", (two.ids["one"],)
        )
    waiting.join()
    assert Posted(True, set()) == waiting.answer
