"""Requests that wait, handed out in groups, no two of which ask the same pool at a time."""

import asyncio
from collections import deque
from collections.abc import Sequence
from uuid import UUID

from farebox.flows.decide_pools import Asked, Outcome


class Request:
    """What somebody asked for in one go, and where the answer is awaited."""

    __slots__ = ("answer", "asked", "pool_ids")

    def __init__(self, asked: Sequence[Asked], answer: "asyncio.Future[list[Outcome]]") -> None:
        self.asked = asked
        self.answer = answer
        self.pool_ids = {one.pool_id for one in asked}


class Group:
    """Requests that are decided together, and the pools that are theirs until that is done."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.pool_ids: set[UUID] = set()
        self.commands = 0

    def add(self, request: Request) -> None:
        self.requests.append(request)
        self.pool_ids |= request.pool_ids
        self.commands += len(request.asked)


class Waiting:
    """Requests in the order in which they came; each pool is asked by one group at a time."""

    def __init__(self) -> None:
        self.commands = 0
        self._ready: deque[Request] = deque()
        # The pools that groups have, and who waits behind them alone until they are done.
        self._parked: dict[UUID, list[Request]] = {}

    def add(self, request: Request) -> bool:
        """Let a request wait; return whether a group can be made of it now."""
        self.commands += len(request.asked)
        if self._park(request):
            return False
        self._ready.append(request)
        return True

    def next_group(self, commands_max: int) -> Group:
        """Take the requests that can be decided now; none where all of them have to wait.

        A request of several pools keeps its place: while it waits for one of them, nobody who
        came later gets another.
        """
        group = Group()
        passed: list[Request] = []
        kept: set[UUID] = set()
        while self._ready and group.commands < commands_max:
            request = self._ready.popleft()
            if self._park(request):
                continue
            if not kept.isdisjoint(request.pool_ids) or self._is_busy(request):
                kept |= request.pool_ids
                passed.append(request)
            else:
                group.add(request)
        for pool_id in group.pool_ids:
            self._parked[pool_id] = []
        # Whoever is left and came before those who will be parked is parked before them.
        self._ready = deque(one for one in (*passed, *self._ready) if not self._park(one))
        self.commands -= group.commands
        return group

    def done(self, group: Group) -> None:
        """Let others ask the pools of a group."""
        for pool_id in group.pool_ids:
            self._ready.extend(self._parked.pop(pool_id))

    def _park(self, request: Request) -> bool:
        """Put a request of one pool behind the group that has it, if one has."""
        if len(request.pool_ids) != 1:
            return False
        behind = self._parked.get(next(iter(request.pool_ids)))
        if behind is None:
            return False
        behind.append(request)
        return True

    def _is_busy(self, request: Request) -> bool:
        return not self._parked.keys().isdisjoint(request.pool_ids)
