"""Lookups that many requests want at once: each round trip is for all who came meanwhile."""

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from litestar.concurrency import sync_to_thread

Name = TypeVar("Name", bound=Hashable)
Found = TypeVar("Found")

NAMES_AT_ONCE = 1_000


class Gather(Generic[Name, Found]):
    """Looks up what is asked for, one lookup at a time; used on the event loop alone."""

    def __init__(self, look_up: Callable[[Sequence[Name]], Mapping[Name, Found]]) -> None:
        """`look_up` runs in a thread and leaves out what it does not find."""
        self._look_up = look_up
        self._wanted: dict[Name, asyncio.Future[Found | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def find(self, name: Name) -> Found | None:
        """Return what was found under a name; raises what its lookup raised."""
        loop = asyncio.get_running_loop()
        answer = self._wanted.get(name)
        if answer is None:
            answer = self._wanted[name] = loop.create_future()
        if self._task is None:
            self._task = loop.create_task(self._run())
        # Whoever gives up must not take the answer from the others.
        return await asyncio.shield(answer)

    async def _run(self) -> None:
        try:
            while self._wanted:
                names = list(self._wanted)[:NAMES_AT_ONCE]
                answers = [self._wanted.pop(name) for name in names]
                try:
                    found = await sync_to_thread(self._look_up, names)
                except Exception as error:
                    for answer in answers:
                        answer.set_exception(error)
                        answer.exception()  # nobody may be left who wants it
                else:
                    for name, answer in zip(names, answers, strict=True):
                        answer.set_result(found.get(name))
        finally:
            self._task = None
