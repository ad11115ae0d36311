"""Lookups that wait are done together, and each asker gets the answer to what it asked."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from farebox.http import gather
from farebox.http.gather import Gather


class Slow:
    """Looks up lengths of words, and waits each time until it may go on."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.go_on = threading.Semaphore(0)
        self.error: Exception | None = None

    def __call__(self, words: Sequence[str]) -> dict[str, int]:
        self.asked.append(list(words))
        assert self.go_on.acquire(timeout=10)
        if self.error is not None:
            raise self.error
        return {word: len(word) for word in words if word != "nothing"}

    async def until_asked(self, times: int) -> None:
        while len(self.asked) < times:
            await asyncio.sleep(0.001)


@pytest.fixture
def slow() -> Slow:
    return Slow()


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 10))


def test_who_comes_while_a_lookup_is_under_way_shares_the_next_one(slow: Slow) -> None:
    async def story() -> None:
        found = Gather(slow)
        first = asyncio.create_task(found.find("a"))
        await slow.until_asked(1)
        names = ["bb", "ccc", "bb", "nothing"]
        others = [asyncio.create_task(found.find(name)) for name in names]
        await asyncio.sleep(0)
        slow.go_on.release(2)
        assert 1 == await first
        assert [2, 3, 2, None] == await asyncio.gather(*others)
        assert [["a"], ["bb", "ccc", "nothing"]] == slow.asked
        slow.go_on.release()
        assert 1 == await found.find("a"), "nothing is remembered"

    run(story())


def test_a_lookup_takes_only_so_many_names(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "NAMES_AT_ONCE", 2)

    async def story() -> None:
        found = Gather(slow)
        slow.go_on.release(9)
        assert [1] * 5 == await asyncio.gather(*(found.find(name) for name in "abcde"))
        assert [2, 2, 1] == [len(names) for names in slow.asked]

    run(story())


def test_a_failure_is_told_to_those_who_asked_and_to_nobody_later(slow: Slow) -> None:
    async def story() -> None:
        found = Gather(slow)
        slow.error = OSError("gone")
        slow.go_on.release(2)
        answers = await asyncio.gather(found.find("a"), found.find("bb"), return_exceptions=True)
        assert [slow.error, slow.error] == list(answers)
        slow.error = None
        assert 2 == await found.find("bb")

    run(story())


def test_who_gives_up_does_not_take_the_answer_from_the_others(slow: Slow) -> None:
    async def story() -> None:
        found = Gather(slow)
        one, other = (asyncio.create_task(found.find("a")) for _ in range(2))
        await slow.until_asked(1)
        one.cancel()
        slow.go_on.release()
        assert 1 == await other
        with pytest.raises(asyncio.CancelledError):
            await one

    run(story())
